package routing

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// javaPattern is a java.util.regex pattern as far as Go's engine gives it the
// same meaning. What Go refuses (look-around, back-references, possessive
// quantifiers) and what it would read differently is refused at New.
type javaPattern struct {
	first *regexp.Regexp // Matcher.find
	full  *regexp.Regexp // Matcher.matches
}

func compileJavaPattern(text string) (*javaPattern, error) {
	if err := checkJavaPattern(text); err != nil {
		return nil, err
	}
	first, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("is a pattern that cannot be used: %w", err)
	}
	full, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("is a pattern that cannot be used: %w", err)
	}
	return &javaPattern{first: first, full: full}, nil
}

// checkJavaPattern refuses what compiles in both languages with two meanings.
func checkJavaPattern(text string) error {
	inClass := false
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		switch {
		case strings.HasPrefix(rest, `\Q`):
			return errors.New(`contains \Q, which is not supported: escape single characters`)
		case rest[0] == '\\' && len(rest) > 1:
			if strings.IndexByte("0123456789vCs", rest[1]) >= 0 {
				return fmt.Errorf("contains %s, which Java and Go read differently", rest[:2])
			}
			i++
		case inClass && strings.HasPrefix(rest, "&&"), inClass && rest[0] == '[':
			return errors.New("contains a class within a class, which is not supported")
		case rest[0] == '[':
			inClass = true
			// A ] right behind [ or [^ is a member of the class in Go and refused,
			// or read as one more class, in Java.
			if after := strings.TrimPrefix(rest[1:], "^"); strings.HasPrefix(after, "]") {
				return errors.New(`contains [] without a member; write \] for the bracket itself`)
			}
		case inClass && rest[0] == ']':
			inClass = false
		case !inClass && strings.HasPrefix(rest, "(?") && strings.Contains(flagsOf(rest), "U"):
			return errors.New("contains the flag U, which Java and Go read differently")
		}
	}
	return nil
}

// flagsOf returns the letters of an inline flag group such as (?iU) or (?U:.
func flagsOf(group string) string {
	letters := group[len("(?"):]
	end := strings.IndexFunc(letters, func(c rune) bool { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' })
	if end < 0 || letters[end] != ')' && letters[end] != ':' {
		return ""
	}
	return letters[:end]
}

func (p *javaPattern) matches(text string) bool { return p.full.MatchString(text) }

// find returns the places of the first match and its groups, as
// regexp.FindStringSubmatchIndex does.
func (p *javaPattern) find(text string) []int { return p.first.FindStringSubmatchIndex(text) }

// javaReplacement is a replacement in Java's language: $1 and ${name} are
// groups, \ takes the next character as it is.
// (java.util.regex.Matcher.appendReplacement.)
type javaReplacement []replacementPart

// replacementPart is a literal, or a group where group is not negative.
type replacementPart struct {
	literal string
	group   int
}

// parseJavaReplacement reads a replacement for the pattern. A group that the
// pattern does not have is refused here; Java stops at the first record.
func parseJavaReplacement(text string, pattern *javaPattern) (javaReplacement, error) {
	var parts javaReplacement
	var literal strings.Builder
	for i := 0; i < len(text); {
		switch text[i] {
		case '\\':
			if i+1 == len(text) {
				return nil, errors.New(`ends in \, which escapes nothing`)
			}
			literal.WriteByte(text[i+1])
			i += 2
		case '$':
			group, length, err := replacementGroup(text[i:], pattern.first)
			if err != nil {
				return nil, err
			}
			if literal.Len() > 0 {
				parts = append(parts, replacementPart{literal: literal.String(), group: -1})
				literal.Reset()
			}
			parts = append(parts, replacementPart{group: group})
			i += length
		default:
			literal.WriteByte(text[i])
			i++
		}
	}
	if literal.Len() > 0 {
		parts = append(parts, replacementPart{literal: literal.String(), group: -1})
	}
	return parts, nil
}

// replacementGroup reads $1 or ${name} at the start of text. Of several digits
// Java takes as many as name a group: $12 is group 1, then "2", where the
// pattern has fewer than twelve.
func replacementGroup(text string, pattern *regexp.Regexp) (group, length int, err error) {
	if strings.HasPrefix(text, "${") {
		name, _, closed := strings.Cut(text[2:], "}")
		if !closed || name == "" {
			return 0, 0, errors.New("has ${ without a name and }")
		}
		if group = pattern.SubexpIndex(name); group < 0 {
			return 0, 0, fmt.Errorf("names the group %q, which the pattern does not have", name)
		}
		return group, len("${}") + len(name), nil
	}
	if len(text) < 2 || text[1] < '0' || text[1] > '9' {
		return 0, 0, errors.New(`has a $ without a group; write \$ for the character`)
	}
	group, length = int(text[1]-'0'), 2
	if group > pattern.NumSubexp() {
		return 0, 0, fmt.Errorf("names the group %d, the pattern has %d", group, pattern.NumSubexp())
	}
	for ; length < len(text) && '0' <= text[length] && text[length] <= '9'; length++ {
		next := group*10 + int(text[length]-'0')
		if next > pattern.NumSubexp() {
			break
		}
		group = next
	}
	return group, length, nil
}

// appendTo appends the replacement of a match; a group that took no part is
// empty.
func (r javaReplacement) appendTo(out *strings.Builder, text string, match []int) {
	for _, part := range r {
		switch {
		case part.group < 0:
			out.WriteString(part.literal)
		case match[2*part.group] >= 0:
			out.WriteString(text[match[2*part.group]:match[2*part.group+1]])
		}
	}
}
