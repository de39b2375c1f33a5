// The foreign upstream of the ingest tests, pinned. The newest version that Debian's oldest supported Go builds.
module sluice.dev/e2e/httpbin

go 1.18

require github.com/mccutchen/go-httpbin/v2 v2.13.4
