package main

import (
	"context"
	"log/slog"
	"net"

	"github.com/vmdisk/vmdisk/internal/confine"
)

// frontEnd is one way in which clients reach the exports. None knows of another. The
// methods are called in this order; describe and needs as often as one likes.
type frontEnd interface {
	// prepare reads the flags and what they name, before a disk is opened.
	prepare() error
	// listen takes the places where clients come. None is served yet.
	listen(s serving) error
	// describe is how clients reach an export, a URI for each place.
	describe(e export) []string
	// needs adds what serving and ending take once the program has restricted itself.
	needs(n *confine.Needs)
	// run serves until drain is called, which may be before run is.
	run(ctx context.Context) error
	// drain takes no new clients, and waits for the requests of those there are as long as ctx lasts.
	drain(ctx context.Context) error
	// end gives up the places, and whatever else is left. It is always called, last.
	end()
}

// serving is what a front end serves, and with what.
type serving struct {
	exports []export
	// given are sockets that a service manager handed over.
	given []net.Listener
	// account is whom the program becomes, nil if it stays who it is.
	account *confine.Account
	log     *slog.Logger
}

// frontEnds are those of this program, a row each.
func (f *serveFlags) frontEnds() []frontEnd {
	return []frontEnd{
		&nbdFrontEnd{flags: f},
	}
}

func endAll(fronts []frontEnd) {
	for _, front := range fronts {
		front.end()
	}
}
