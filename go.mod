module compute-starter-kit-go-fanout-forward

go 1.24.0

require github.com/fastly/compute-sdk-go v1.9.0
