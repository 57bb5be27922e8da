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

// MaxPublish is the maximum size of the body of one publish request, in bytes. That is the JSON with all items, in all
// their formats.
// Source: https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/
const MaxPublish = 64 << 10

// Item is a message to a channel, in one or more formats. Each connection gets the format for the way in which it is
// held.
// Source: https://pushpin.org/docs/publishing/
type Item struct {
	Channel string  `json:"channel"`
	ID      string  `json:"id,omitempty"`      // the message's id
	PrevID  string  `json:"prev-id,omitempty"` // the id of the message before it on the channel
	Formats Formats `json:"formats"`
}

// Formats has the formats of a message. The message does not have a format that is nil.
// Source: https://pushpin.org/docs/publishing/
type Formats struct {
	HTTPStream   *HTTPStream   `json:"http-stream,omitempty"`
	HTTPResponse *HTTPResponse `json:"http-response,omitempty"`
	WSMessage    *WSMessage    `json:"ws-message,omitempty"`
}

// HTTPStream is for responses that are held in the mode Stream: the proxy adds Content to them.
type HTTPStream struct {
	Content string `json:"content"`
}

// HTTPResponse is the response to a request that is held in the mode Response. Values that it does not set are those of
// the origin's response with the hold.
type HTTPResponse struct {
	Code    int               `json:"code,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body"`
}

// WSMessage is a text message for WebSockets.
type WSMessage struct {
	Content string `json:"content"`
}

// ErrTooLarge is the error for a publish request that is larger than MaxPublish.
var ErrTooLarge = errors.New("the message is too large to publish")

// PublishError is the error for a publish request that was refused.
type PublishError struct {
	StatusCode int    // the status of the response
	Body       string // the beginning of the response's body; if it has the request's credentials, they are removed
}

func (e *PublishError) Error() string {
	advice := "try again later"
	switch {
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		advice = "the key in GRIP_URL is wrong, has expired or is not for this service: put a valid one there"
	case e.StatusCode == http.StatusTooManyRequests:
		advice = "the limit of publish requests or messages was reached: publish less often, and try again later"
	case e.StatusCode < 500:
		advice = "check the host and the path in GRIP_URL: they are not those of a GRIP publish endpoint"
	}
	return fmt.Sprintf("publishing was refused with status %d (%s); %s; the answer: %.200q", e.StatusCode, http.StatusText(e.StatusCode), advice, e.Body)
}

var publishClient = http.Client{
	Timeout: 10 * time.Second,
	// A redirect would change the POST to a GET. Its 200 would look like a success.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// encode returns the body of a request that publishes the items. If it is too large, the error wraps ErrTooLarge.
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

// Fits checks that one call of Publish can publish the items. If they are too large, the error wraps ErrTooLarge.
func Fits(items ...Item) error {
	_, err := encode(items)
	return err
}

// Publish publishes the items in one request. If they are too large, the error wraps ErrTooLarge. If the proxy refuses
// the request, it is a *PublishError. There is another error if there is no response. No error shows a key.
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
			err = detail.Err // leave out the URL: its query may have secrets, and the error is logged
		}
		return fmt.Errorf("publish: no response from the GRIP proxy at %s; check that it runs, and that GRIP_URL has its host and port: %w", req.URL.Host, err)
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
