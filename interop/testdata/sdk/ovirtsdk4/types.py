# The types of the stand-in for oVirt's Python SDK, and their XML.
from enum import Enum, unique
from xml.etree import ElementTree

COLLECTIONS = {"data_centers", "storage_domains", "clusters", "hosts", "disks", "image_transfers", "vms", "jobs"}


@unique
class DiskFormat(Enum):
    COW = "cow"
    RAW = "raw"


@unique
class DiskStatus(Enum):
    ILLEGAL = "illegal"
    LOCKED = "locked"
    OK = "ok"


@unique
class ImageTransferPhase(Enum):
    CANCELLED = "cancelled"
    FINALIZING_FAILURE = "finalizing_failure"
    FINALIZING_SUCCESS = "finalizing_success"
    FINISHED_FAILURE = "finished_failure"
    FINISHED_SUCCESS = "finished_success"
    INITIALIZING = "initializing"
    PAUSED_SYSTEM = "paused_system"
    PAUSED_USER = "paused_user"
    RESUMING = "resuming"
    TRANSFERRING = "transferring"
    UNKNOWN = "unknown"


@unique
class Architecture(Enum):
    PPC64 = "ppc64"
    S390X = "s390x"
    UNDEFINED = "undefined"
    X86_64 = "x86_64"


@unique
class ConfigurationType(Enum):
    OVA = "ova"
    OVF = "ovf"


@unique
class JobStatus(Enum):
    ABORTED = "aborted"
    FAILED = "failed"
    FINISHED = "finished"
    STARTED = "started"
    UNKNOWN = "unknown"


class Thing:
    """What the constructor was given, and links; None for the rest."""

    links = ()
    fields = {}  # how the text of an element is read; str if it is not here

    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class Link(Thing):
    pass


class Host(Thing):
    pass


class StorageDomain(Thing):
    pass


class Cpu(Thing):
    fields = {"architecture": Architecture}


class Cluster(Thing):
    pass


class DataCenter(Thing):
    links = {"storagedomains": "storage_domains", "clusters": "clusters"}


class Disk(Thing):
    fields = {"format": DiskFormat, "status": DiskStatus, "initial_size": int, "provisioned_size": int,
              "sparse": lambda text: text == "true"}


class ImageTransfer(Thing):
    fields = {"phase": ImageTransferPhase, "format": DiskFormat, "inactivity_timeout": int}

    # virt-v2v looks whether there is a parameter "format".
    def __init__(self, disk=None, host=None, inactivity_timeout=None, format=None, **kwargs):
        super().__init__(disk=disk, host=host, inactivity_timeout=inactivity_timeout, format=format, **kwargs)


class Initialization(Thing):
    pass


class Configuration(Thing):
    fields = {"type": ConfigurationType}


class Vm(Thing):
    pass


class Job(Thing):
    fields = {"status": JobStatus}


class Action(Thing):
    pass


KINDS = {"data_center": DataCenter, "storage_domain": StorageDomain, "cluster": Cluster, "cpu": Cpu, "host": Host, "disk": Disk,
         "image_transfer": ImageTransfer, "vm": Vm, "initialization": Initialization, "configuration": Configuration, "job": Job,
         "action": Action}
TAGS = {kind: tag for tag, kind in KINDS.items()}


def read(element):
    """The thing, the list of things, or the value that an element holds."""
    if element.tag in COLLECTIONS or element.tag == "image_transfers":
        return [read(child) for child in element]
    kind = KINDS.get(element.tag)
    if kind is None:
        return element.text or ""
    thing = kind(**element.attrib)
    for child in element:
        if child.tag == "link":
            if child.get("rel") in kind.links:
                setattr(thing, kind.links[child.get("rel")], Link(href=child.get("href")))
        else:
            value = read(child)
            setattr(thing, child.tag, kind.fields.get(child.tag, lambda v: v)(value))
    return thing


def write(thing, tag=None):
    """The element of a thing. Elements are in alphabetical order, as the SDK's are."""
    element = ElementTree.Element(tag or TAGS[type(thing)])
    for name, value in sorted(vars(thing).items()):
        if value is None:
            continue
        if name in ("id", "href"):
            element.set(name, value)
        elif isinstance(value, Thing):
            element.append(write(value, name))
        elif isinstance(value, list):
            children = ElementTree.SubElement(element, name)
            children.extend(write(v) for v in value)
        else:
            ElementTree.SubElement(element, name).text = text(value)
    return element


def text(value):
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
