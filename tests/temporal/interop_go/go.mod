module wakeline/interop

go 1.24.0

require (
	go.temporal.io/api v1.62.12
	go.temporal.io/sdk v1.45.0
	go.temporal.io/sdk/contrib/workflowstreams v0.1.1
)
