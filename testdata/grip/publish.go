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

// MaxPublish is the maximum size in bytes of the JSON that one request publishes.
// Source: https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/
const MaxPublish = 64 << 10

// Item is a message to a channel, in one or more formats. A connection receives the format for the
// way in which it is held.
// Source: https://pushpin.org/docs/publishing/
type Item struct {
	Channel string  `json:"channel"`
	ID      string  `json:"id,omitempty"`
	PrevID  string  `json:"prev-id,omitempty"` // the ID of the message before it on the channel
	Formats Formats `json:"formats"`
}

// Formats has the formats of a message.
type Formats struct {
	HTTPStream   *HTTPStream   `json:"http-stream,omitempty"`
	HTTPResponse *HTTPResponse `json:"http-response,omitempty"`
	WSMessage    *WSMessage    `json:"ws-message,omitempty"`
}

// HTTPStream is appended to responses that are held in the mode Stream.
type HTTPStream struct {
	Content string `json:"content"`
}

// HTTPResponse answers requests that are held in the mode Response. The status and the headers are
// those of the origin's response.
type HTTPResponse struct {
	Body string `json:"body"`
}

// WSMessage is a text message for WebSockets.
type WSMessage struct {
	Content string `json:"content"`
}

// ErrTooLarge is the error for a publish request that is larger than MaxPublish.
var ErrTooLarge = errors.New("the message is too large to publish")

// PublishError is the error for a publish request that was refused.
type PublishError struct {
	StatusCode int
	Body       string // the beginning of the response's body, without the request's credentials
}

func (e *PublishError) Error() string {
	advice := "try again later"
	switch {
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		advice = "the key in GRIP_URL is wrong, has expired or is not for this service: put a valid one there"
	case e.StatusCode == http.StatusTooManyRequests:
		advice = "the limit of publish requests or messages was reached: publish less often, and try again later"
	case e.StatusCode < 500:
		advice = "check the host and path in GRIP_URL: they are not those of a GRIP publish endpoint"
	}
	return fmt.Sprintf("publishing was refused with status %d (%s); %s; the answer: %.200q",
		e.StatusCode, http.StatusText(e.StatusCode), advice, e.Body)
}

var publishClient = http.Client{
	Timeout: 10 * time.Second,
	// A redirect would change the POST to a GET. Its 200 would look like a success.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// encode returns the body of a request that publishes the items.
func encode(items []Item) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // otherwise "<" would take six bytes
	if err := enc.Encode(map[string][]Item{"items": items}); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	body.Truncate(body.Len() - 1) // the line end
	if body.Len() > MaxPublish {
		return nil, fmt.Errorf("%w: all its formats together take %d bytes, and %d are allowed", ErrTooLarge, body.Len(), MaxPublish)
	}
	return body.Bytes(), nil
}

// Fits returns an error that wraps ErrTooLarge if the items are too large for one call of Publish.
func Fits(items ...Item) error {
	_, err := encode(items)
	return err
}

// Publish publishes the items in one request. Its error wraps ErrTooLarge if they are too large, and
// is a *PublishError if the proxy refuses them. No error shows a key.
func (c *Config) Publish(ctx context.Context, items ...Item) error {
	body, err := encode(items)
	if err != nil {
		return err
	}
	u := c.ControlURI.JoinPath("publish/")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	var authorization string
	if c.authorize != nil {
		authorization = c.authorize()
		req.Header.Set("Authorization", authorization)
	}
	resp, err := publishClient.Do(req)
	if err != nil {
		if detail := new(url.Error); errors.As(err, &detail) {
			err = detail.Err // without the URL, whose query may have secrets: the error is logged
		}
		return fmt.Errorf("publish: no response from the GRIP proxy at %s; check that it runs, and that GRIP_URL has its host and port: %w", u.Host, err)
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(io.LimitReader(resp.Body, MaxPublish))
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil
	}
	answer := strings.TrimSpace(string(content))
	if _, credentials, ok := strings.Cut(authorization, " "); ok {
		answer = strings.ReplaceAll(answer, credentials, "(withheld)")
	}
	return &PublishError{resp.StatusCode, answer[:min(len(answer), 512)]}
}
