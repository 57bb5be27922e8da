package grip

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// MaxPublish is the maximum size in bytes of the body of a publish request.
// Source: https://github.com/fastly/cli/blob/main/pkg/commands/compute/serve.go
const MaxPublish = 64 << 10

// Item is a message to a channel. A connection receives the format for the way in which it
// is held, and nothing if there is none.
// Source: https://pushpin.org/docs/publishing/
type Item struct {
	Channel string  `json:"channel"`
	ID      string  `json:"id,omitempty"`
	PrevID  string  `json:"prev-id,omitempty"` // the ID of the message before it on the channel
	Formats Formats `json:"formats"`
}

// Formats are the formats of a message.
type Formats struct {
	HTTPStream   *HTTPStream   `json:"http-stream,omitempty"`
	HTTPResponse *HTTPResponse `json:"http-response,omitempty"`
	WSMessage    *WSMessage    `json:"ws-message,omitempty"`
}

// HTTPStream is appended to responses that are held in the mode Stream.
type HTTPStream struct {
	Content string `json:"content"`
}

// HTTPResponse answers requests that are held in the mode Response, with the status and
// the headers of the origin's response.
type HTTPResponse struct {
	Body string `json:"body"`
}

// WSMessage is a text message for WebSockets.
type WSMessage struct {
	Content string `json:"content"`
}

// Publisher publishes through a GRIP proxy.
type Publisher struct {
	ControlURI *url.URL // for example http://localhost:5561/, without "/publish/"
	Token      string   // a Fastly API token for Fanout; "" for Pushpin
}

var publishClient = http.Client{
	Timeout: 10 * time.Second,
	// A redirect would change the POST to a GET. Its 200 would look like a success.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Publish publishes the items in one request. No error shows the token.
func (p *Publisher) Publish(ctx context.Context, items ...Item) error {
	body, err := Encode(items...)
	if err != nil {
		return err
	}
	u := p.ControlURI.JoinPath("publish/").String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.Token != "" {
		req.Header.Set("Authorization", "Bearer "+p.Token)
	}
	resp, err := publishClient.Do(req)
	if err != nil {
		return fmt.Errorf("publish: no response from the GRIP proxy; "+
			"check that it runs, and that GRIP_URL has its host and port: %w", err)
	}
	defer resp.Body.Close()
	advice := "try again later"
	switch status := resp.StatusCode; {
	case status >= 200 && status <= 299:
		return nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		advice = "put a valid key for this service into GRIP_URL"
	case status < 500 && status != http.StatusTooManyRequests:
		advice = "check the host and path in GRIP_URL"
	}
	content, _ := io.ReadAll(io.LimitReader(resp.Body, MaxPublish))
	answer := strings.TrimSpace(string(content))
	if p.Token != "" {
		answer = strings.ReplaceAll(answer, p.Token, "(withheld)")
	}
	return fmt.Errorf("publishing was refused with status %s; %s; the answer: %.200q",
		resp.Status, advice, answer)
}

// Encode returns the body of a publish request, or an error if it would be too large.
func Encode(items ...Item) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)                      // otherwise "<" would take six bytes
	enc.Encode(map[string][]Item{"items": items}) // cannot fail
	body.Truncate(body.Len() - 1)                 // the line end
	if body.Len() > MaxPublish {
		return nil, fmt.Errorf("the message is too large: in all its formats it takes "+
			"%d bytes, and %d are allowed", body.Len(), MaxPublish)
	}
	return body.Bytes(), nil
}
