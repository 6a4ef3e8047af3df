package payment

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
)

// minKeyBytes is the length of the shortest API key that is accepted.
const minKeyBytes = 16

// APIKeys are the programs that may call the service. Only digests are kept.
type APIKeys struct {
	names   []string
	digests [][sha256.Size]byte
}

// ParseAPIKeys reads a key file: one program per line as NAME KEY, blank lines
// and lines that begin with # aside. Errors name the line, never the key.
func ParseAPIKeys(text string) (*APIKeys, error) {
	keys := &APIKeys{}
	var problems []error
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 2 {
			problems = append(problems, fmt.Errorf("line %d: want NAME KEY", i+1))
			continue
		}
		if len(fields[1]) < minKeyBytes {
			problems = append(problems, fmt.Errorf("line %d: the key of %s is shorter than %d bytes", i+1, fields[0], minKeyBytes))
			continue
		}
		keys.names, keys.digests = append(keys.names, fields[0]), append(keys.digests, sha256.Sum256([]byte(fields[1])))
	}
	if len(problems) == 0 && len(keys.names) == 0 {
		problems = append(problems, errors.New("no key in it"))
	}
	return keys, errors.Join(problems...)
}

// client returns the name of the program that sent the header. It compares
// digests, and all of them, so that the time taken tells nothing. A program may
// have several keys under one name, to change them.
func (k *APIKeys) client(authorization string) (string, bool) {
	scheme, key, _ := strings.Cut(authorization, " ")
	digest := sha256.Sum256([]byte(strings.TrimSpace(key)))
	name, found := "", false
	for i := range k.digests {
		if subtle.ConstantTimeCompare(digest[:], k.digests[i][:]) == 1 {
			name, found = k.names[i], true
		}
	}
	return name, found && strings.EqualFold(scheme, "Bearer")
}
