package grip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const public = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETCXHb3KMCQ4DWDA6kqm/rZJFdReu
GjuqV8OLTJu6nHeTSziqSgMFuRc3k89vt0Tg+Kwu6sCiYgwp2UqSP2bHcw==
-----END PUBLIC KEY-----
`

// Each row has a GRIP_URL, a GRIP_VERIFY_KEY, and what is printed. No error shows a key.
func TestParseURL(t *testing.T) {
	const fanout = "https://api.fastly.com/service/ID"
	for _, tt := range [][3]string{
		{LocalURL, "", "http://localhost:5561/  not through the GRIP proxy: it has no Grip-Sig"},
		{"http://localhost/a/?verify-key=a&key=k%2B", "", "http://localhost/a/ k+"},
		{fanout + "?key=TOKEN&verify-iss=x", public, fanout + " TOKEN"},
		{"ftp://localhost/", "", "must be an http or https URL"},
		{"http:///path", "", "must be an http or https URL"},
		{"http://localhost:SECRET/", "", "must be an http or https URL"},
		{fanout + "/{service-id}?key=SECRET", "", "still has {...}"},
		{fanout + "/publish/?key=SECRET", "", "leave it out"},
		{fanout + "?key=SECRET%", "", "escape the special characters"},
		{fanout + "?iss=me&key=SECRET", "", "only the parameters key, verify-iss and verify-key"},
		{fanout + "?verify-iss=x&key=SECRET", "", "set GRIP_VERIFY_KEY"},
		{fanout, "base64:", "not base64"},
		{fanout, "base64:SECRET!", "not base64"},
		{fanout, `{"kty":"oct","k":"SECRET"}`, "use the same key in PEM"},
		{fanout, "-----BEGIN SECRET", "no public key for ES256"},
		{fanout + "?key=SECRET", public, "add verify-iss=fastly:"},
	} {
		c, err := ParseURL(tt[0], tt[1])
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(c.ControlURI, " ", c.Token, " ", c.Verify(&http.Request{}))
		}
		if !strings.Contains(got, tt[2]) || strings.Contains(got, "SECRET") {
			t.Errorf("%q: got %s", tt, got)
		}
	}
}

func TestVerify(t *testing.T) {
	const key = "\xfb\xff\xfe\xff"
	secret := []byte(key)
	private, _ := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte("a private key for tests, 32 byte"))
	sign := func(alg string, with any, issuer string, exp int64) string {
		claims := jwt.MapClaims{"iss": issuer, "exp": exp}
		sig, _ := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(with)
		return sig
	}
	soon := time.Now().Unix() + 60
	for _, tt := range [][3]string{
		{"base64:+// /w==", sign("HS256", secret, "me", soon), "<nil>"}, // a plus sign from a URL
		{public, sign("ES256", private, "me", soon), "<nil>"},
		{public, sign("HS256", []byte(public), "me", soon), "HS256 is invalid"},
		{"another", sign("HS256", secret, "me", soon), "signature is invalid"},
		{key, sign("HS256", secret, "another", soon), "invalid issuer"},
		{key, sign("HS256", secret, "me", 1), "expired"},
		{key, sign("HS256", secret, "me", 0), "exp claim is required"}, // 0 is none
		{key, sign("none", jwt.UnsafeAllowNoneSignatureType, "me", soon), "none is invalid"},
	} {
		c, err := ParseURL("http://localhost:5561/?verify-iss=me&verify-key=x", tt[0])
		if err == nil {
			err = c.Verify(&http.Request{Header: http.Header{"Grip-Sig": {tt[1]}}})
		}
		if !strings.Contains(fmt.Sprint(err), tt[2]) {
			t.Errorf("%q: got %v", tt, err)
		}
	}
}

// Set sets these headers, or none and returns an error.
func TestHold(t *testing.T) {
	for want, hold := range map[string]Hold{
		"map[Grip-Channel:[] Grip-Hold:[response]] <nil>": {Mode: Response},
		"map[Grip-Channel:[a b:c; prev-id=x-1] Grip-Hold:[stream] " +
			"Grip-Keep-Alive:[OiAieCJcCgo=; format=base64; timeout=20] " +
			"Grip-Link:[</next?a=b>; rel=next; timeout=30] Grip-Timeout:[25]] <nil>": {
			Mode: Stream, Channels: []Channel{{"a", ""}, {"b:c", "x-1"}},
			KeepAlive: ": \"x\"\\\n\n", KeepAliveAfter: 20 * time.Second,
			Next: "/next?a=b", NextAfter: 30 * time.Second, Timeout: 25 * time.Second,
		},
		`map[] Grip-Channel "a\r\nb": only`:         {Channels: []Channel{{"a\r\nb", ""}}},
		`map[] Grip-Channel "a, b": only`:           {Channels: []Channel{{"a, b", ""}}},
		`map[] Grip-Channel "": only`:               {Channels: []Channel{{"", ""}}},
		`map[] Grip-Channel "a; prev-id=1;2": only`: {Channels: []Channel{{"a", "1;2"}}},
	} {
		h := http.Header{}
		if got := fmt.Sprint(h, hold.Set(h)); !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestLast(t *testing.T) {
	h := http.Header{"Grip-Last": {"c; last-id=3", "aa; last-id=2, a; x=4,a ; last-id=1"}}
	if got := Last(h, "a"); got != "1" {
		t.Errorf("%q: got %q", h, got)
	}
}

// Each error has one line that says what to change, and does not show the token.
func TestPublish(t *testing.T) {
	item := Item{Channel: "c", ID: "2", PrevID: "1", Formats: Formats{
		HTTPStream: &HTTPStream{"a\n"}, HTTPResponse: &HTTPResponse{"b"}, WSMessage: &WSMessage{"<d>"},
	}}
	const want = "POST/service/ID/publish/ [application/json] [Bearer TOKEN]" +
		`{"items":[{"channel":"c","id":"2","prev-id":"1","formats":{"http-stream":{"content":"a\n"},` +
		`"http-response":{"body":"b"},"ws-message":{"content":"<d>"}}},{"channel":"d","formats":{}}]}`
	for status, says := range map[int]string{
		0:   "no response from the GRIP proxy; check that it runs",
		202: "<nil>",
		301: "check the host and path in GRIP_URL", // not followed
		401: "put a valid key for this service into GRIP_URL",
		403: "put a valid key for this service into GRIP_URL",
		429: `try again later; the answer: "no\nxxx`,
		503: "try again later",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			h := r.Header
			got := fmt.Sprint(r.Method, r.URL, h["Content-Type"], h["Authorization"], string(body))
			if got != want {
				t.Errorf("got %s; want %s", got, want)
			}
			w.Header().Set("Location", "/")
			w.WriteHeader(status)
			io.WriteString(w, "no\n"+strings.Repeat("x", 195)+"TOKEN")
		}))
		defer server.Close()
		if status == 0 {
			server.Close()
		}
		control := strings.Replace(server.URL, "//", "//u:TOKEN@", 1) + "/service/ID/"
		c, _ := ParseURL(control+"?verify-key=k&key=TOKEN", "") // cannot fail
		got := fmt.Sprint(c.Publish(t.Context(), item, Item{Channel: "d"}))
		if !strings.Contains(got, says) || strings.Contains(got, "\n") || strings.Contains(got, "TO") {
			t.Errorf("%d: got %s, want %s", status, got, says)
		}
	}
}

// What DecodeEvents accepts is the same after EncodeEvents and DecodeEvents.
func FuzzEvents(f *testing.F) {
	for body, event := range map[string]Event{
		"OPEN\r\n":                   {Open, nil},
		"PING 0\r\n\r\n":             {Ping, []byte{}},
		"TEXT 6\r\nm:c:{}\r\n":       Message(Text, []byte("c:{}")),
		"BINARY 4\r\nm:\x00\xff\r\n": Message(Binary, []byte{0, 255}),
		"CLOSE 5\r\n\x0f\xa1bye\r\n": CloseEvent(4001, "bye"),
		"TEXT 27\r\nc:{\"channel\":\"a\\\"b\",\"type\":\"subscribe\"}\r\n": Subscribe(`a"b`),
	} {
		f.Add([]byte(body))
		got, err := DecodeEvents([]byte(body + body))
		if !reflect.DeepEqual(got, []Event{event, event}) || string(EncodeEvents(event)) != body {
			f.Errorf("%q: got %q, %v; %q becomes %q", body, got, err, event, EncodeEvents(event))
		}
	}
	for _, bad := range []string{
		"OPEN", "open\r\n", "TEXT -1\r\n\r\n", "TEXT 5\r\nhello\r", "TEXT 4\r\nhello\r\n",
		"TEXT 6\r\nhello\r\n", "TEXT 8\r\nhello\r\n", "TEXT ffffffffffffffff\r\n\r\n",
	} {
		got, err := DecodeEvents([]byte("PONG\r\n" + bad))
		if !strings.HasPrefix(fmt.Sprint(err), "websocket events: event 2, ") {
			f.Errorf("%q: got %q, %v", bad, got, err)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := DecodeEvents(body)
		again, errAgain := DecodeEvents(EncodeEvents(events...))
		if err == nil && (errAgain != nil || !reflect.DeepEqual(again, events)) {
			t.Errorf("%q: %q becomes %q, %v", body, events, again, errAgain)
		}
	})
}
