package grip

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

var item = Item{Channel: "c", ID: "2", PrevID: "1", Formats: Formats{
	HTTPStream: &HTTPStream{"a\n"}, HTTPResponse: &HTTPResponse{"b"}, WSMessage: &WSMessage{"<d>"},
}}

// Publish sends this request. The end-to-end tests show that Pushpin accepts it.
func TestPublish(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.RequestURI + " " + r.Header.Get("Content-Type") + " " + r.Header.Get("Authorization") + " " + string(body)
	}))
	defer server.Close()
	if err := parse(t, server.URL+"/service/ID/?key=TOKEN&a=b").Publish(t.Context(), item); err != nil {
		t.Fatal(err)
	}
	want := `POST /service/ID/publish/?a=b application/json Bearer TOKEN {"items":[{"channel":"c","id":"2","prev-id":"1","formats":` +
		`{"http-stream":{"content":"a\n"},"http-response":{"body":"b"},"ws-message":{"content":"<d>"}}}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// An error has one line. It says what to change, and does not show the token.
func TestPublishRefused(t *testing.T) {
	long := strings.Repeat("x", 510)
	for _, tt := range []struct {
		status             int
		answer, body, says string
	}{
		{301, "", "", "check the host and path in GRIP_URL"}, // not followed
		{401, "TOKEN\nhas expired", "(withheld)\nhas expired", "the key in GRIP_URL is wrong, has expired or is not for this service"},
		{403, "no such token\n", "no such token", "the key in GRIP_URL is wrong"},
		{404, "Not found", "Not found", "check the host and path in GRIP_URL"},
		{429, "slow down", "slow down", "the limit of publish requests or messages was reached: publish less often, and try again later"},
		{503, long + "TOKEN", long + "(w", "try again later"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.answer)
		}))
		err := parse(t, server.URL+"/?key=TOKEN").Publish(t.Context(), item)
		server.Close()
		if refused := new(PublishError); !errors.As(err, &refused) || refused.StatusCode != tt.status || refused.Body != tt.body {
			t.Errorf("%d: got %#v", tt.status, err)
		} else if text := err.Error(); !strings.Contains(text, tt.says) || strings.Contains(text, "\n") || strings.Contains(text, "TOKEN") {
			t.Errorf("%d: the error is %s", tt.status, text)
		}
	}
}

func TestPublishNoResponse(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	addr := server.Listener.Addr().String()
	for _, url := range []string{addr + "/?key=TOKEN", addr + "/?iss=me&key=TOKEN", addr + "/?token=TOKEN", "u:TOKEN@" + addr} {
		err := parse(t, "http://"+url).Publish(t.Context(), item)
		if !failed(err, "no response from the GRIP proxy at "+addr+"; check that it runs") || strings.Contains(err.Error(), "TOKEN") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

func TestFits(t *testing.T) {
	around := len(`{"items":[{"channel":"c","formats":{"ws-message":{"content":""}}}]}`)
	largest := Item{Channel: "c", Formats: Formats{WSMessage: &WSMessage{strings.Repeat("x", 65_536-around)}}}
	if err := Fits(largest); err != nil {
		t.Error(err)
	}
	largest.Formats.WSMessage.Content += "x"
	if err := Fits(largest); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte more: got %v", err)
	}
}

func parse(t *testing.T, gripURL string) *Config {
	t.Helper()
	c, err := ParseURL(gripURL, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
