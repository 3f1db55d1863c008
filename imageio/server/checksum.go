package server

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// Bounds of block_size, in bytes, which keep a client from taking memory.
const (
	defaultBlock = 4 << 20
	minBlock     = 1 << 20
	maxBlock     = 16 << 20
)

func getAlgorithms(_ *conn, _ *request, w *response, _ string) error {
	return w.sendJSON(pyjson.Object{}.With("algorithms", diskcopy.Algorithms()))
}

func getChecksum(c *conn, req *request, w *response, id string) error {
	if id == "" {
		return failf(400, "Ticket id is required")
	}
	algorithm, err := enum(req.query, "algorithm", diskcopy.Algorithms()[0], diskcopy.Algorithms()...)
	if err != nil {
		return err
	}
	block := int64(defaultBlock)
	if text, ok := req.query["block_size"]; ok {
		if block, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64); errors.Is(err, strconv.ErrRange) {
			block = maxBlock + 1
		} else if err != nil {
			return failf(400, "Invalid block size: %.80s", pyjson.Repr(text))
		}
	}
	if block < minBlock || block > maxBlock {
		return failf(400, "Block size out of allowed range: %d-%d", minBlock, maxBlock)
	}
	if block%4096 != 0 {
		return failf(400, "Block size is not aligned to 4096")
	}
	t, d, err := c.image(id, "read")
	if err != nil {
		return err
	}
	c.note("checksum", "[%s] CHECKSUM ticket=%s transfer=%s algorithm=%s block_size=%d", c.client, logID(id), t.spec.TransferID, algorithm, block)
	var sum diskcopy.Digest
	// To the original what was read for it is transferred, too.
	err = c.run(t, "checksum", 0, func(ctx context.Context, op *operation) error {
		sum, err = diskcopy.Checksum(ctx, d, diskcopy.ChecksumOptions{Algorithm: algorithm, BlockSize: block,
			Progress: func(p diskcopy.Progress) { op.done.Store(p.Done) }})
		if err == nil {
			op.done.Store(d.Size())
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.sendJSON(pyjson.Object{}.With("algorithm", sum.Algorithm, "block_size", sum.BlockSize, "checksum", sum.Checksum))
}
