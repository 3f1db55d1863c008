package server

import (
	"bytes"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// metrics are what /metrics shows, over all services.
type metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	connections prometheus.Counter
}

func newMetrics(tickets *Tickets) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vmdisk_imageio_operations_total",
			Help: "Operations on images, by kind and result."}, []string{"op", "result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vmdisk_imageio_bytes_total",
			Help: "Bytes read, written or zeroed, by kind of operation."}, []string{"op"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vmdisk_imageio_operation_seconds",
			Help: "Duration of operations on images.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}, []string{"op"}),
		connections: prometheus.NewCounter(prometheus.CounterOpts{Name: "vmdisk_imageio_connections_total",
			Help: "Connections accepted."}),
	}
	m.registry.MustRegister(m.requests, m.bytes, m.seconds, m.connections,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vmdisk_imageio_tickets", Help: "Tickets installed."},
			func() float64 { return float64(tickets.count()) }))
	return m
}

func (m *metrics) count(op string, took time.Duration, bytes int64, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.requests.WithLabelValues(op, result).Inc()
	m.bytes.WithLabelValues(op).Add(float64(bytes))
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
}

func getMetrics(c *conn, _ *request, w *response, rest string) error {
	families, err := c.svc.metrics.registry.Gather()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return err
		}
	}
	w.set("content-type", "text/plain; version=0.0.4; charset=utf-8")
	return w.send(b.Bytes())
}
