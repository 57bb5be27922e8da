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

// MaxPublish is how large one publish request may be, in bytes: all items, in all their formats, as
// JSON.
// Source: https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/
const MaxPublish = 64 << 10

// Item is a message to a channel, in one or more formats: a connection gets the one that fits how it
// is held.
// Source: https://pushpin.org/docs/publishing/
type Item struct {
	Channel string  `json:"channel"`
	ID      string  `json:"id,omitempty"`      // its id
	PrevID  string  `json:"prev-id,omitempty"` // the id of the message before it on the channel
	Formats Formats `json:"formats"`
}

// Formats are the formats of a message; those that are nil it does not have.
// Source: https://pushpin.org/docs/publishing/
type Formats struct {
	HTTPStream   *HTTPStream   `json:"http-stream,omitempty"`
	HTTPResponse *HTTPResponse `json:"http-response,omitempty"`
	WSMessage    *WSMessage    `json:"ws-message,omitempty"`
}

// HTTPStream is appended to a response that is held in the mode Stream.
type HTTPStream struct {
	Content string `json:"content"`
}

// HTTPResponse is the response to a request that is held in the mode Response. What it does not set
// is as the origin gave it with the hold.
type HTTPResponse struct {
	Code    int               `json:"code,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body"`
}

// WSMessage is a text message to WebSockets.
type WSMessage struct {
	Content string `json:"content"`
}

// ErrTooLarge is the error for a publish request that is larger than MaxPublish.
var ErrTooLarge = errors.New("the message is too large to publish")

// PublishError is the refusal of a publish request.
type PublishError struct {
	StatusCode int    // the status of the response
	Body       string // the beginning of its body, without the credentials that were sent, should it have them
}

func (e *PublishError) Error() string {
	advice := "try again later"
	switch {
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		advice = "the key in GRIP_URL is wrong, has expired or is not for this service: put a valid one there"
	case e.StatusCode < 500:
		advice = "look at the host and the path in GRIP_URL: it is not a publishing API that answers, or not that of a service"
	}
	return fmt.Sprintf("publishing was refused with status %d (%s); %s; the answer: %.200q", e.StatusCode, http.StatusText(e.StatusCode), advice, e.Body)
}

var publishClient = http.Client{
	Timeout: 10 * time.Second,
	// A redirect would make a GET of the POST, and its 200 would pass for a success.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// encode returns the body of a request that publishes the items, or an error that wraps ErrTooLarge.
func encode(items []Item) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // "<" would take six bytes
	if err := enc.Encode(map[string][]Item{"items": items}); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	body.Truncate(body.Len() - 1) // the line end
	if body.Len() > MaxPublish {
		return nil, fmt.Errorf("%w: it takes %d bytes in all its formats, and %d are allowed", ErrTooLarge, body.Len(), MaxPublish)
	}
	return body.Bytes(), nil
}

// Fits returns an error that wraps ErrTooLarge if the items are more than Publish takes at once.
func Fits(items ...Item) error {
	_, err := encode(items)
	return err
}

// Publish publishes the items, in one request. The error wraps ErrTooLarge, is a *PublishError, or is
// that of a request that got no response; it names no key.
// Source: https://pushpin.org/docs/publishing/
func (c *Config) Publish(ctx context.Context, items ...Item) error {
	body, err := encode(items)
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(c.ControlURI, "?")
	if query != "" {
		query = "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path+"/publish/"+query, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	var authorization string
	if c.authorize != nil {
		if authorization, err = c.authorize(); err != nil {
			return fmt.Errorf("publish: authorize: %w", err)
		}
		req.Header.Set("Authorization", authorization)
	}
	resp, err := publishClient.Do(req)
	if err != nil {
		if detail := new(url.Error); errors.As(err, &detail) {
			err = detail.Err // without the URL: what its query has is not for a log
		}
		return fmt.Errorf("publish: no response from the GRIP proxy at %s; is it running, and is that the host and port for GRIP_URL: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, MaxPublish))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		body := strings.TrimSpace(string(answer))
		if _, credentials, ok := strings.Cut(authorization, " "); ok {
			body = strings.ReplaceAll(body, credentials, "(withheld)")
		}
		return &PublishError{resp.StatusCode, body[:min(len(body), 512)]}
	}
	return nil
}
