package grip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// Item is a message to a channel. A connection receives the format for
// the way in which it is held.
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

// refused returns the error for a publish request that was answered with this status.
func refused(status int, answer string) error {
	advice := "try again later"
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		advice = "the key in GRIP_URL is wrong, has expired or is not for this service: " +
			"put a valid one there"
	case status == http.StatusTooManyRequests:
		advice = "the limit of publish requests or messages was reached: publish less often, " +
			"and try again later"
	case status < 500:
		advice = "check the host and path in GRIP_URL: " +
			"they are not those of a GRIP publish endpoint"
	}
	return fmt.Errorf("publishing was refused with status %d (%s); %s; the answer: %.200q",
		status, http.StatusText(status), advice, answer)
}

var publishClient = http.Client{
	Timeout: 10 * time.Second,
	// A redirect would change the POST to a GET. Its 200 would look like a success.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// encode returns the body of a publish request.
func encode(items []Item) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)                      // otherwise "<" would take six bytes
	enc.Encode(map[string][]Item{"items": items}) // cannot fail
	body.Truncate(body.Len() - 1)                 // the line end
	if body.Len() > MaxPublish {
		return nil, fmt.Errorf("the message is too large: all its formats together take %d bytes, "+
			"and %d are allowed", body.Len(), MaxPublish)
	}
	return body.Bytes(), nil
}

// Fits returns an error if the items are too large for one call of Publish.
func Fits(items ...Item) error {
	_, err := encode(items)
	return err
}

// Publish publishes the items in one request. No error shows a key.
func (c *Config) Publish(ctx context.Context, items ...Item) error {
	body, err := encode(items)
	if err != nil {
		return err
	}
	u := c.ControlURI.JoinPath("publish/")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(),
		bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	var token string
	if c.token != nil {
		token = c.token()
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := publishClient.Do(req)
	if err != nil {
		if detail := new(url.Error); errors.As(err, &detail) {
			err = detail.Err // without the URL, which may have secrets: the error is logged
		}
		return fmt.Errorf("publish: no response from the GRIP proxy at %s; "+
			"check that it runs, and that GRIP_URL has its host and port: %w", u.Host, err)
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(io.LimitReader(resp.Body, MaxPublish))
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil
	}
	answer := strings.TrimSpace(string(content))
	if token != "" {
		answer = strings.ReplaceAll(answer, token, "(withheld)")
	}
	return refused(resp.StatusCode, answer)
}
