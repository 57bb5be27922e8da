module compute-starter-kit-go-fanout-forward

go 1.24.0

require github.com/fastly/compute-sdk-go v1.9.0 // the newest with which the tests have run; 1.10 and 1.11 exist
