package grip

import (
	"fmt"
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
		contentType, authorization := r.Header.Get("Content-Type"), r.Header.Get("Authorization")
		got = fmt.Sprintln(r.Method, r.RequestURI, contentType, authorization, string(body))
	}))
	defer server.Close()
	if err := publish(t, server.URL+"/service/ID/?key=TOKEN&a=b"); err != nil {
		t.Fatal(err)
	}
	want := `POST /service/ID/publish/?a=b application/json Bearer TOKEN ` +
		`{"items":[{"channel":"c","id":"2","prev-id":"1","formats":{"http-stream":{"content":"a\n"},` +
		`"http-response":{"body":"b"},"ws-message":{"content":"<d>"}}}]}` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// An error has one line. It says what to change, and does not show the token.
func TestPublishRefused(t *testing.T) {
	for _, tt := range []struct {
		status       int
		answer, says string
	}{
		{301, "", "check the host and path in GRIP_URL"}, // not followed
		{401, "TOKEN\nexpired", `put a valid one there; the answer: "(withheld)\nexpired"`},
		{403, "no such token\n", "the key in GRIP_URL is wrong"},
		{404, "", "check the host and path in GRIP_URL"},
		{429, "slow down", "publish less often"},
		{503, strings.Repeat("x", 198) + "TOKEN", `; try again later; the answer: "x`},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.answer)
		}))
		err := publish(t, server.URL+"/?key=TOKEN")
		server.Close()
		says := fmt.Sprint("publishing was refused with status ", tt.status)
		if !failed(err, says) || !failed(err, tt.says) {
			t.Errorf("%d: got %v", tt.status, err)
		} else if text := err.Error(); strings.Contains(text, "\n") || strings.Contains(text, "TO") {
			t.Errorf("%d: the error is %s", tt.status, text)
		}
	}
}

func TestPublishNoResponse(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	addr := server.Listener.Addr().String()
	err := publish(t, "http://u:TOKEN@"+addr+"/?key=TOKEN&token=TOKEN")
	want := "no response from the GRIP proxy at " + addr + "; check that it runs"
	if !failed(err, want) || strings.Contains(err.Error(), "TOKEN") {
		t.Errorf("got %v", err)
	}
}

func TestFits(t *testing.T) {
	around := len(`{"items":[{"channel":"c","formats":{"ws-message":{"content":""}}}]}`)
	for size, says := range map[int]string{65_536: "", 65_537: "take 65537 bytes, and 65536 are allowed"} {
		message := &WSMessage{strings.Repeat("x", size-around)}
		if err := Fits(Item{Channel: "c", Formats: Formats{WSMessage: message}}); !failed(err, says) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
}

func publish(t *testing.T, gripURL string) error {
	t.Helper()
	c, err := ParseURL(gripURL, "")
	if err != nil {
		t.Fatal(err)
	}
	return c.Publish(t.Context(), item)
}
