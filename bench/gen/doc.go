// Package gen decides what a benchmark job does next: which direction, which
// offset, which length, and what a written block contains.
//
// It follows fio's semantics: a mix is drawn per I/O by count, reads and writes
// keep separate sequential positions, random I/O without norandommap covers each
// block once (by a bitmap or a linear-feedback shift register), and verify blocks
// carry fio's header, so that blocks fio wrote verify here and the other way round.
//
// Nothing here allocates after a generator is made, except for the map of written
// blocks of a verifying job.
package gen
