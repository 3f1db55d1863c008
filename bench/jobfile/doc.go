// Package jobfile reads fio job files and fio's command-line form and resolves
// them to jobs.
//
// Reading goes in two steps. [Parser] turns text into sections of settings, each
// with the place it was written; includes, comments, environment variables and
// keywords are done there. [Resolve] then applies every setting through one table
// of options and expands numjobs, groups and stonewalls to a flat list of [Job].
//
// The grammar is that of fio 3.x. Where fio reads a line in a way that surprises
// its users (a block size of "4 k" is 4 bytes), the default is the reading that
// was meant, with a warning; Strict reads exactly as fio does. An option that
// this engine cannot honour is an error that says why, or, where ignoring it
// changes no result, is accepted with one note.
package jobfile
