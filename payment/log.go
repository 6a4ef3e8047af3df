package payment

// Log attribute keys of this package.
const (
	keyError       = "error"
	keyRows        = "rows"
	keyReservation = "reservation"
	keyRequestID   = "request_id"
	keyMethod      = "method"
	keyPath        = "path"
	keyStatus      = "status"
	keyCode        = "code"
	keyTook        = "took"
)
