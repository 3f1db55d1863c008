package engine

import (
	"encoding/xml"
	"net/http"
	"os"
)

// entity is what all objects of the API have.
type entity struct {
	ID   string `xml:"id,attr,omitempty"`
	Href string `xml:"href,attr,omitempty"`
	Name string `xml:"name,omitempty"`
}

type link struct {
	Href string `xml:"href,attr"`
	Rel  string `xml:"rel,attr"`
}

type dataCenter struct {
	entity
	Links []link `xml:"link"`
}

type dataCenters struct {
	XMLName xml.Name     `xml:"data_centers"`
	List    []dataCenter `xml:"data_center"`
}

type storageDomains struct {
	XMLName xml.Name `xml:"storage_domains"`
	List    []entity `xml:"storage_domain"`
}

type cluster struct {
	entity
	XMLName      xml.Name `xml:"cluster"`
	Architecture string   `xml:"cpu>architecture"`
}

type clusters struct {
	XMLName xml.Name  `xml:"clusters"`
	List    []cluster `xml:"cluster"`
}

type hosts struct {
	XMLName xml.Name `xml:"hosts"`
	List    []entity `xml:"host"`
}

// listed is list if the object is what the call searches for.
func listed[T any](r *http.Request, object map[string]string, list ...T) ([]T, error) {
	ok, err := matches(r, object)
	if err != nil || !ok {
		return nil, err
	}
	return list, nil
}

func (e *Engine) listDataCenters(r *http.Request) (any, error) {
	href := root + "datacenters/" + dataCenterID
	list, err := listed(r, map[string]string{"name": DataCenter, "storage.name": StorageDomain}, dataCenter{
		entity{dataCenterID, href, DataCenter},
		[]link{{href + "/storagedomains", "storagedomains"}, {href + "/clusters", "clusters"}},
	})
	return dataCenters{List: list}, err
}

func (e *Engine) listStorageDomains(r *http.Request) (any, error) {
	list, err := listed(r, map[string]string{"name": StorageDomain}, entity{storageDomainID, root + "storagedomains/" + storageDomainID, StorageDomain})
	return storageDomains{List: list}, err
}

var theCluster = cluster{entity: entity{clusterID, root + "clusters/" + clusterID, Cluster}, Architecture: "x86_64"}

func (e *Engine) listClusters(r *http.Request) (any, error) {
	list, err := listed(r, map[string]string{"name": Cluster}, theCluster)
	return clusters{List: list}, err
}

func (e *Engine) getCluster(r *http.Request) (any, error) {
	if r.PathValue("id") != clusterID {
		return nil, faultf(http.StatusNotFound, "no cluster %s", r.PathValue("id"))
	}
	return theCluster, nil
}

func (e *Engine) listHosts(r *http.Request) (any, error) {
	list, err := listed(r, map[string]string{"hw_id": HardwareID, "datacenter": DataCenter, "status": "Up"}, entity{hostID, root + "hosts/" + hostID, "host"})
	return hosts{List: list}, err
}

// VM is a machine that was added.
type VM struct{ ID, Cluster, OVF string }

type vm struct {
	XMLName xml.Name `xml:"vm"`
	entity
	Cluster entity `xml:"cluster"`
	Type    string `xml:"initialization>configuration>type,omitempty"`
	OVF     string `xml:"initialization>configuration>data,omitempty"`
}

type vms struct {
	XMLName xml.Name `xml:"vms"`
	List    []entity `xml:"vm"`
}

type job struct {
	Description string `xml:"description"`
	Status      string `xml:"status"`
}

type jobs struct {
	XMLName xml.Name `xml:"jobs"`
	List    []job    `xml:"job"`
}

func (e *Engine) listVMs(r *http.Request) (any, error) {
	answer := vms{}
	for _, v := range e.vms {
		list, err := listed(r, map[string]string{"name": v.Name}, v.entity)
		if err != nil {
			return nil, err
		}
		answer.List = append(answer.List, list...)
	}
	return answer, nil
}

// addVM makes a machine of an OVF, all of whose disks must be there and whole.
func (e *Engine) addVM(r *http.Request) (any, error) {
	var v vm
	if err := read(r, &v); err != nil {
		return nil, err
	}
	if v.Cluster.ID != clusterID || v.Type != "ova" {
		return nil, faultf(http.StatusBadRequest, "a machine needs the cluster %s and an OVF of type ova, not %q", clusterID, v.Type)
	}
	var ovf struct {
		Name  string `xml:"VirtualSystem>Name"`
		Disks []struct {
			ID   string `xml:"diskId,attr"`
			File string `xml:"fileRef,attr"`
		} `xml:"DiskSection>Disk"`
	}
	if err := xml.Unmarshal([]byte(v.OVF), &ovf); err != nil || ovf.Name == "" {
		return nil, faultf(http.StatusBadRequest, "the OVF names no machine (%v): %s", err, v.OVF)
	}
	for _, d := range ovf.Disks {
		if known := e.disks[d.ID]; known == nil || known.Status != diskOK {
			return nil, faultf(http.StatusConflict, "the disk %+v of the machine is not there, or not whole", d)
		}
	}
	v.entity = entity{ID: newID(), Name: ovf.Name}
	v.Href = root + "vms/" + v.ID
	e.vms = append(e.vms, v)
	e.jobs[r.FormValue("correlation_id")] = "finished"
	return vm{entity: v.entity, Cluster: v.Cluster}, nil
}

// VMs are the machines that were added.
func (e *Engine) VMs() (all []VM) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.vms {
		all = append(all, VM{v.ID, v.Cluster.ID, v.OVF})
	}
	return all
}

func (e *Engine) listJobs(r *http.Request) (any, error) {
	answer := jobs{}
	for id, status := range e.jobs {
		list, err := listed(r, map[string]string{"correlation_id": id}, job{"Adding a machine", status})
		if err != nil {
			return nil, err
		}
		answer.List = append(answer.List, list...)
	}
	return answer, nil
}

// States of a disk.
const (
	diskLocked = "locked"
	diskOK     = "ok"
)

type disk struct {
	XMLName xml.Name `xml:"disk"`
	entity
	Description string   `xml:"description,omitempty"`
	Format      string   `xml:"format"`
	Initial     int64    `xml:"initial_size,omitempty"`
	Provisioned int64    `xml:"provisioned_size"`
	Sparse      bool     `xml:"sparse"`
	Status      string   `xml:"status,omitempty"`
	Domains     []entity `xml:"storage_domains>storage_domain"`
	path        string
}

func (e *Engine) addDisk(r *http.Request) (any, error) {
	d := new(disk)
	if err := read(r, d); err != nil {
		return nil, err
	}
	switch {
	case len(d.Domains) != 1 || d.Domains[0].Name != StorageDomain:
		return nil, faultf(http.StatusBadRequest, "a disk needs one storage domain, %s", StorageDomain)
	case d.Format != "raw":
		return nil, faultf(http.StatusBadRequest, "format %q: this engine has raw disks", d.Format)
	case d.Provisioned <= 0:
		return nil, faultf(http.StatusBadRequest, "provisioned_size %d", d.Provisioned)
	case e.disks[d.ID] != nil:
		return nil, faultf(http.StatusConflict, "the disk %s exists", d.ID)
	case d.ID == "":
		d.ID = newID()
	}
	d.Href, d.Status, d.path = root+"disks/"+d.ID, diskLocked, e.diskPath(d.ID)
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(d.Provisioned); err != nil {
		return nil, err
	}
	e.disks[d.ID] = d
	return *d, nil
}

func (e *Engine) diskOf(id string) (*disk, error) {
	d := e.disks[id]
	if d == nil {
		return nil, faultf(http.StatusNotFound, "no disk %s", id)
	}
	return d, nil
}

// getDisk shows a new disk locked once, as it is while the host makes it.
func (e *Engine) getDisk(r *http.Request) (any, error) {
	d, err := e.diskOf(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if d.Status == diskLocked && e.transferOf(d.ID) == nil {
		d.Status = diskOK
	}
	return *d, nil
}

func (e *Engine) removeDisk(r *http.Request) (any, error) {
	d, err := e.diskOf(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if d.Status == diskLocked {
		return nil, faultf(http.StatusConflict, "the disk %s is locked", d.ID)
	}
	return action{Status: "complete"}, e.drop(d)
}

func (e *Engine) drop(d *disk) error {
	delete(e.disks, d.ID)
	return os.Remove(d.path)
}
