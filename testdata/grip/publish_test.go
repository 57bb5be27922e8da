package grip

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The requests that Publish makes, as a server gets them; that Pushpin takes them is tested end to end.
func TestPublish(t *testing.T) {
	var got string
	status, answer := http.StatusOK, "Published"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.RequestURI + " " + r.Header.Get("Content-Type") + " " + r.Header.Get("Authorization") + " " + string(body)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	c, err := ParseURL(server.URL+"/service/ID/?key=TOKEN", "")
	if err != nil {
		t.Fatal(err)
	}
	item := Item{Channel: "c", ID: "2", PrevID: "1", Formats: Formats{
		HTTPStream:   &HTTPStream{Content: "a\n"},
		HTTPResponse: &HTTPResponse{Body: "b"},
		WSMessage:    &WSMessage{Content: "d"},
	}}
	if err := c.Publish(t.Context(), item); err != nil {
		t.Fatal(err)
	}
	want := `POST /service/ID/publish/ application/json Bearer TOKEN {"items":[{"channel":"c","id":"2","prev-id":"1","formats":` +
		`{"http-stream":{"content":"a\n"},"http-response":{"body":"b"},"ws-message":{"content":"d"}}}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	status, answer = http.StatusForbidden, "no such token\n"
	var refused *PublishError
	if err := c.Publish(t.Context(), item); !errors.As(err, &refused) || refused.StatusCode != 403 || refused.Body != "no such token" {
		t.Errorf("refused: got %v", err)
	}

	status = http.StatusMovedPermanently
	if err := c.Publish(t.Context(), item); !errors.As(err, &refused) || refused.StatusCode != 301 {
		t.Errorf("redirected: got %v", err)
	}

	server.Close()
	err = c.Publish(t.Context(), item)
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "no response") || strings.Contains(err.Error(), "TOKEN") {
		t.Errorf("down: got %v", err)
	}
}

func TestFits(t *testing.T) {
	const around = len(`{"items":[{"channel":"c","formats":{"ws-message":{"content":""}}}]}`)
	for size, fits := range map[int]bool{MaxPublish: true, MaxPublish + 1: false} {
		item := Item{Channel: "c", Formats: Formats{WSMessage: &WSMessage{Content: strings.Repeat("x", size-around)}}}
		if err := Fits(item); (err == nil) != fits || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
}
