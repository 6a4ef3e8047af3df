package routing

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// attributePrefix marks the headers that are attributes of the event.
const attributePrefix = "ce_"

// encodeStructured makes a record of the whole event as one JSON document.
// The attributes stay headers as well (CloudEvents "Kafka Protocol Binding",
// 3.3 allows it), but content-type then is the document's. A NULL payload stays
// a tombstone: the headers alone carry the event.
func (r *Router) encodeStructured(p *plan, row *cdc.Row) (content, error) {
	headers, err := r.cloudEventHeaders(p, row)
	if err != nil {
		return content{}, err
	}
	payload, err := p.rawValue(row, p.payload)
	if err != nil || payload == nil {
		return content{headers: headers}, err
	}
	at := slices.IndexFunc(headers, func(h cdc.Header) bool { return h.Key == headerContentType })
	document := make([]byte, 0, 512+len(payload))
	document = append(document, '{')
	for _, header := range headers {
		name, isAttribute := strings.CutPrefix(header.Key, attributePrefix)
		switch {
		case isAttribute && isAttributeName(name):
		case isAttribute:
			return content{}, badRow(row, fmt.Sprintf("has the header %s, which is no name of a CloudEvents attribute", quoted(header.Key)), "use a-z and 0-9 behind ce_, and not the names data, data_base64 and datacontenttype")
		case header.Key == headerContentType:
			name = "datacontenttype"
		default:
			continue
		}
		document = appendMember(document, name, header.Value)
		document = append(document, ',')
	}
	document, ok := appendData(document, payload, p.typeOf(p.payload), headers[at].Value)
	if !ok {
		return content{}, badRow(row, fmt.Sprintf("declares its payload as %s, but it is no JSON", quoted(headers[at].Value)), "correct the payload or the header content-type")
	}
	headers[at].Value = contentEnvelope
	return content{value: append(document, '}'), headers: headers}, nil
}

// isAttributeName says whether an attribute of the JSON document may have this
// name. (CloudEvents "JSON Event Format", 2.1 and 3.1.)
func isAttributeName(name string) bool {
	if name == "" || name == "data" || name == "datacontenttype" {
		return false
	}
	return strings.IndexFunc(name, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }) < 0
}

// appendData appends the member with the payload; it reports false for a
// payload that is declared as JSON and is none.
func appendData(document, payload []byte, typeOID uint32, contentType []byte) ([]byte, bool) {
	switch {
	case typeOID == oidBytea:
		document = append(document, `"data_base64":"`...)
		document = base64.StdEncoding.AppendEncode(document, payload)
		return append(document, '"'), true
	case typeOID == oidJSON, typeOID == oidJSONB:
		return append(append(document, `"data":`...), payload...), true
	case isJSONContent(contentType):
		return append(append(document, `"data":`...), payload...), json.Valid(payload)
	default:
		return appendMember(document, "data", payload), true
	}
}

// isJSONContent says whether a content type is JSON: application/json,
// application/problem+json; charset=utf-8.
func isJSONContent(contentType []byte) bool {
	mediaType, _, _ := strings.Cut(string(contentType), ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json")
}

// appendMember appends "name":"value". The server checked the UTF-8.
func appendMember(document []byte, name string, value []byte) []byte {
	document = append(document, '"')
	document = append(document, name...)
	document = append(document, `":"`...)
	for _, c := range value {
		switch {
		case c == '"' || c == '\\':
			document = append(document, '\\', c)
		case c < ' ':
			document = append(document, `\u00`...)
			document = appendHex(document, uint64(c), 2)
		default:
			document = append(document, c)
		}
	}
	return append(document, '"')
}
