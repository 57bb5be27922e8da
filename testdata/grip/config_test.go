package grip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
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

func TestVerify(t *testing.T) {
	private, _ := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte("a private key for tests, 32 byte"))
	token := func(alg string, key any, issuer string, exp int64) string {
		claims := jwt.MapClaims{"iss": issuer, "exp": exp}
		signed, _ := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(key)
		return signed
	}
	secret, none := []byte("\xfb\xff\xfe\xff"), jwt.UnsafeAllowNoneSignatureType
	soon := time.Now().Add(time.Minute).Unix()
	for _, tt := range []struct{ verifyKey, sig, says string }{
		{"base64:+// /w==", token("HS256", secret, "me", soon), "<nil>"}, // a plus sign from a URL
		{string(secret), token("HS256", secret, "me", soon), "<nil>"},
		{public, token("ES256", private, "me", soon), "<nil>"},
		{public, token("HS256", []byte(public), "me", soon), "HS256 is invalid"},
		{"another", token("HS256", secret, "me", soon), "signature is invalid"},
		{string(secret), token("HS256", secret, "another", soon), "invalid issuer"},
		{string(secret), token("HS256", secret, "me", 1), "expired"},
		{string(secret), token("HS256", secret, "me", 0), "exp claim is required"}, // 0 is none
		{string(secret), token("none", none, "me", soon), "signing method none is invalid"},
		{string(secret), "", "not through the GRIP proxy: it has no Grip-Sig"},
	} {
		c, err := ParseURL("http://localhost:5561/?verify-iss=me", tt.verifyKey)
		if err == nil {
			err = c.Verify(&http.Request{Header: http.Header{"Grip-Sig": {tt.sig}}})
		}
		if !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s for the key %q: got %v, want %s", tt.sig, tt.verifyKey, err, tt.says)
		}
	}
}

// The document has the local GRIP_URL and Fanout's key. The coordinates are from the JSON Web Key in
// https://github.com/fanout/js-grip#the-grip_url.
func TestKeys(t *testing.T) {
	text, _ := os.ReadFile("../origin/README.md")
	if !strings.Contains(string(text), "`"+LocalURL+"`") {
		t.Errorf("the document does not have %s", LocalURL)
	}
	key := regexp.MustCompile(`base64:[A-Za-z0-9+/=]{50,}`).Find(text)
	c, err := ParseURL("https://api.fastly.com/service/ID?verify-iss=fastly:ID", string(key))
	if err != nil {
		t.Fatal(err)
	}
	point, _ := c.key.(*ecdsa.PublicKey).Bytes() // 4, and then both coordinates
	for want, got := range map[string][]byte{
		"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg": point[1:33],
		"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M": point[33:],
	} {
		if got := base64.RawURLEncoding.EncodeToString(got); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Each line has a GRIP_URL, a GRIP_VERIFY_KEY, and the control URI and the token, or the error. No
// error shows a key.
func TestParseURL(t *testing.T) {
	const service = "https://api.fastly.com/service/ID"
	for _, tt := range [][3]string{
		{LocalURL, "", "http://localhost:5561/ "},
		{"http://localhost/a/?verify-key=a&key=k%2B", "", "http://localhost/a/ k+"},
		{service + "?key=TOKEN&verify-iss=x", public, service + " TOKEN"},
		{service + "?verify-iss=x&verify-key=" + url.QueryEscape(public), "", service + " "},
		{"ftp://localhost/", "", "must be an http or https URL"},
		{"http:///path", "", "must be an http or https URL"},
		{"http://localhost:SECRET/", "", "must be an http or https URL"},
		{service + "/{service-id}?key=SECRET", "", "still has {...}"},
		{service + "/publish/?key=SECRET", "", "leave it out"},
		{service + "?key=SECRET%", "", "escape the special characters"},
		{service + "?iss=me&key=SECRET", "", "only the parameters key, verify-iss and verify-key"},
		{service + "?verify-iss=x&key=SECRET", "", "set GRIP_VERIFY_KEY"},
		{service, "base64:", "not base64"},
		{service, "base64:SECRET!", "not base64"},
		{service, `{"kty":"oct","k":"SECRET"}`, "use the same key in PEM"},
		{service, "-----BEGIN PUBLIC KEY-----\nSECR\n-----END PUBLIC KEY-----\n", "ES256"},
		{service + "?key=SECRET", public, "add verify-iss=fastly:"},
	} {
		c, err := ParseURL(tt[0], tt[1])
		got := fmt.Sprint(err)
		if err == nil {
			got = c.ControlURI.String() + " " + c.Token
		}
		if !strings.Contains(got, tt[2]) || strings.Contains(got, "SECRET") {
			t.Errorf("%q: got %s", tt, got)
		}
	}
}
