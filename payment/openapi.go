package payment

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// openAPIYAML is the contract; a test holds every answer against it.
//
//go:embed openapi.yaml
var openAPIYAML []byte

// openAPIDocument returns the contract as JSON.
func openAPIDocument() ([]byte, error) {
	var document map[string]any
	if err := yaml.Unmarshal(openAPIYAML, &document); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml as JSON: %w", err)
	}
	return append(text, '\n'), nil
}
