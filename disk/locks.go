package disk

import (
	"context"
	"sync"
)

// rangeLocks keeps read-modify-write cycles apart from everything that changes
// the same blocks. A cycle (exclusive) that reads a block, while an aligned
// write to the neighbouring bytes of the block lands, writes the old bytes back
// and loses an acknowledged write; so ordinary writes, zeroes and trims take
// the range shared. Only disks with Min > 1 use it.
//
// Holders and waiters stand in one list in order of arrival; a node waits for
// the conflicting nodes before it, which makes the lock fair. The list is as
// long as the I/O in flight, and shared holders do not scan it while there is
// no exclusive one.
type rangeLocks struct {
	mu         sync.Mutex
	changed    sync.Cond // L is &mu; set by init
	head, tail *lockNode
	exclusive  int // exclusive nodes in the list
	waiting    int
}

type lockNode struct {
	off, end   int64
	exclusive  bool
	prev, next *lockNode
}

var lockNodes = sync.Pool{New: func() any { return new(lockNode) }}

func (l *rangeLocks) init() { l.changed.L = &l.mu }

// lock waits for [off, off+n) and returns the node to unlock.
func (l *rangeLocks) lock(ctx context.Context, off, n int64, exclusive bool) (*lockNode, error) {
	node := lockNodes.Get().(*lockNode)
	*node = lockNode{off: off, end: off + n, exclusive: exclusive}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.insert(node)
	if !l.blocked(node) {
		return node, nil
	}
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.changed.Broadcast()
		l.mu.Unlock()
	})
	defer stop()
	for l.blocked(node) {
		if err := ctx.Err(); err != nil {
			l.remove(node)
			lockNodes.Put(node)
			return nil, err
		}
		l.waiting++
		l.changed.Wait()
		l.waiting--
	}
	return node, nil
}

// unlock releases a node of lock.
func (l *rangeLocks) unlock(node *lockNode) {
	l.release(node)
	lockNodes.Put(node)
}

// tryShared takes the range of a node that the caller owns, or reports false at once.
func (l *rangeLocks) tryShared(node *lockNode, off, n int64) bool {
	*node = lockNode{off: off, end: off + n}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.insert(node)
	if l.blocked(node) {
		l.remove(node)
		return false
	}
	return true
}

// release ends a node of tryShared.
func (l *rangeLocks) release(node *lockNode) {
	l.mu.Lock()
	l.remove(node)
	l.mu.Unlock()
}

// busy reports whether an exclusive lock on the range would have to wait.
func (l *rangeLocks) busy(off, n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for o := l.head; o != nil; o = o.next {
		if o.off < off+n && off < o.end {
			return true
		}
	}
	return false
}

func (l *rangeLocks) insert(node *lockNode) {
	node.prev = l.tail
	if l.tail == nil {
		l.head = node
	} else {
		l.tail.next = node
	}
	l.tail = node
	if node.exclusive {
		l.exclusive++
	}
}

func (l *rangeLocks) remove(node *lockNode) {
	if node.prev == nil {
		l.head = node.next
	} else {
		node.prev.next = node.next
	}
	if node.next == nil {
		l.tail = node.prev
	} else {
		node.next.prev = node.prev
	}
	node.prev, node.next = nil, nil
	if node.exclusive {
		l.exclusive--
	}
	if l.waiting > 0 {
		l.changed.Broadcast()
	}
}

func (l *rangeLocks) blocked(node *lockNode) bool {
	if !node.exclusive && l.exclusive == 0 {
		return false
	}
	for o := node.prev; o != nil; o = o.prev {
		if o.off < node.end && node.off < o.end && (node.exclusive || o.exclusive) {
			return true
		}
	}
	return false
}
