// Package engine is a stand-in for oVirt's engine: as much of its REST API as
// uploading tools call, over HTTPS and in XML, with one data center, storage
// domain, cluster and host. Disks are raw files of a folder; a transfer installs a
// ticket on a transfer daemon through its control socket, the way the engine has
// the host do it.
package engine
