package monitoring

import (
	"embed"
	"io/fs"
)

//go:embed dashboards/*.json rules/alerts.yaml rules/alerts_test.yaml
var files embed.FS

// Files are dashboards/*.json and rules/*.yaml.
func Files() fs.FS { return files }
