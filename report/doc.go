// Package report turns results into something to look at. The data types are
// plain values: [Table], [Bars], [Lines], [Histogram], [Boxes] and [Listing],
// put together in a [Document] of sections. The renderers take any of them:
//
//   - [Text] for a terminal, [CSV] and [JSON] for programs;
//   - [SVG] and [PNG] for one chart;
//   - [HTML] for a whole document in one self-contained file that needs no network.
//
// The package knows nothing of disks. Values are not changed by rendering, and
// all functions are safe for concurrent use.
package report
