package ledger

// What a writer says about a row's fate, inside the row.
const (
	tagCommitted  = "must-appear"
	tagRolledBack = "must-not-appear"
)

// payload is the value of every row.
type payload struct {
	Key    string `json:"key"`
	Seq    int64  `json:"seq"`
	Writer int    `json:"writer"`
	Tag    string `json:"tag"`
}
