package postgres

import (
	"context"
	"fmt"
)

// EnsureTable runs ddl, which makes the outbox table, if there is no table of
// that name, and reports whether it did. What is there is not judged; that is
// Inspect's work.
func (a *Admin) EnsureTable(ctx context.Context, ddl string) (made bool, err error) {
	conn, l, err := a.look(ctx, connectOptions{})
	if err != nil {
		return false, err
	}
	defer conn.close()
	if l.Table != nil {
		return false, nil
	}
	_, err = conn.query(ctx, fmt.Sprintf("create table %s", a.cfg.Table), ddl)
	return err == nil, err
}
