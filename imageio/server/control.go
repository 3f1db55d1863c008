package server

import (
	"errors"
	"io"
	"time"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

func (s *service) controlRoutes() []route {
	routes := []route{newRoute("/tickets/*", map[string]handler{
		"GET":    needID(getTicket),
		"PUT":    needID(putTicket),
		"PATCH":  needID(patchTicket),
		"DELETE": deleteTicket,
	})}
	if s.cfg.Daemon.Extensions {
		routes = append(routes, newRoute("/metrics", map[string]handler{"GET": getMetrics}))
	}
	return routes
}

// readAll reads a small body.
func (q *request) readAll() ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(&q.body, maxJSON+1))
	if err != nil {
		return nil, fatalf(400, "Reading the message: %v", err)
	}
	if len(text) > maxJSON {
		return nil, fatalf(400, "Message longer than %d bytes", maxJSON)
	}
	return text, nil
}

func getTicket(c *conn, _ *request, w *response, id string) error {
	t := c.svc.tickets.get(id)
	if t == nil {
		return failf(404, "No such ticket %s", pyjson.Repr(id))
	}
	return w.sendJSON(t.info())
}

func putTicket(c *conn, req *request, _ *response, _ string) error {
	text, err := req.readAll()
	if err != nil {
		return err
	}
	t, err := c.svc.tickets.Add(text)
	if err != nil {
		var invalid *invalidTicket
		if !errors.As(err, &invalid) {
			err = failf(400, "%v", err)
		}
		return err
	}
	c.svc.log.info("tickets", "[%s] ADD ticket=%s transfer=%s size=%d ops=%v", c.client, logID(t.spec.UUID), t.spec.TransferID, t.spec.Size, t.spec.Ops)
	return nil
}

func patchTicket(c *conn, req *request, _ *response, id string) error {
	text, err := req.readAll()
	if err != nil {
		return err
	}
	m, err := parseMessage(text)
	if err != nil {
		return failf(400, "Invalid patch: %v", err)
	}
	timeout, err := m.natural("timeout", -1)
	if err != nil {
		return err
	}
	t := c.svc.tickets.get(id)
	if t == nil {
		return failf(404, "No such ticket: %s", id)
	}
	c.svc.log.info("tickets", "[%s] EXTEND ticket=%s timeout=%d transfer=%s", c.client, logID(id), timeout, t.spec.TransferID)
	t.extend(timeout)
	return nil
}

func deleteTicket(c *conn, _ *request, w *response, id string) error {
	w.status = 204
	if id == "" {
		c.svc.log.info("tickets", "[%s] REMOVE all tickets", c.client)
		c.svc.tickets.clear()
		return nil
	}
	c.svc.log.info("tickets", "[%s] REMOVE ticket=%s", c.client, logID(id))
	timeout := time.Duration(c.svc.cfg.Control.RemoveTimeout * float64(time.Second))
	err := c.svc.tickets.remove(id, timeout)
	if errors.Is(err, errCancelTimeout) {
		return failf(409, "%v", err)
	}
	return err
}
