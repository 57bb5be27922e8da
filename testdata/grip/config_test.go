package grip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// sign returns a JWT, which a test sends as a request's signature.
func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.RegisteredClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerify(t *testing.T) {
	secret := []byte("changeme")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	public, err := jwkset.NewJWKFromKey(&private.PublicKey, jwkset.JWKOptions{})
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(public.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	base := "base64:" + base64.StdEncoding.EncodeToString(secret)
	soon, past := jwt.NewNumericDate(time.Now().Add(time.Minute)), jwt.NewNumericDate(time.Now().Add(-5*time.Minute))
	valid := jwt.RegisteredClaims{Issuer: "me", ExpiresAt: soon}
	odd := []byte{0xfb, 0xff, 0xfe, 0xff} // its base64 has both characters that differ in the two alphabets

	tests := []struct {
		name, verifyKey, sig string
		ok                   bool
	}{
		{"secret", string(secret), sign(t, jwt.SigningMethodHS256, secret, valid), true},
		{"secret in base64", base, sign(t, jwt.SigningMethodHS256, secret, valid), true},
		{"secret in base64, for URLs and unpadded", "base64:" + base64.RawURLEncoding.EncodeToString(odd), sign(t, jwt.SigningMethodHS256, odd, valid), true},
		{"secret as a JSON Web Key", `{"kty":"oct","k":"Y2hhbmdlbWU"}`, sign(t, jwt.SigningMethodHS256, secret, valid), true},
		{"public key in PEM", pemKey, sign(t, jwt.SigningMethodES256, private, valid), true},
		{"public key as a JSON Web Key", string(jwk), sign(t, jwt.SigningMethodES256, private, valid), true},
		{"public key in PEM in base64", "base64:" + base64.StdEncoding.EncodeToString([]byte(pemKey)), sign(t, jwt.SigningMethodES256, private, valid), true},
		{"public key as the secret", pemKey, sign(t, jwt.SigningMethodHS256, []byte(pemKey), valid), false},
		{"another secret", string(secret), sign(t, jwt.SigningMethodHS256, []byte("another"), valid), false},
		{"another issuer", string(secret), sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Issuer: "you", ExpiresAt: soon}), false},
		{"expired", string(secret), sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Issuer: "me", ExpiresAt: past}), false},
		{"never expires", string(secret), sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Issuer: "me"}), false},
		{"unsigned", string(secret), sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, valid), false},
		{"no JWT", string(secret), "x.y.z", false},
		{"none", string(secret), "", false},
		{"none, and no key", "", "", false},
		{"any, and no key", "", "x", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseURL("http://localhost:5561/?verify-iss=me", tt.verifyKey)
			if err != nil {
				t.Fatal(err)
			}
			if c.Verifies() != (tt.verifyKey != "") {
				t.Errorf("Verifies returned %t", c.Verifies())
			}
			err = c.Verify(&http.Request{Header: http.Header{HeaderSig: {tt.sig}}})
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrNotProxied) {
				t.Errorf("Verify returned %v; want valid: %t", err, tt.ok)
			}
		})
	}
}

func TestParseURL(t *testing.T) {
	const fastly = `{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg","y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}`
	tests := []struct {
		name, url, verifyKey string
		control, issuer      string
		authorization        string // the beginning of the header
		verifies             bool
	}{
		{name: "control URI only", url: "http://localhost:5561/", control: "http://localhost:5561"},
		{name: "query kept", url: "http://localhost:5561/a/?b=c&key=k", control: "http://localhost:5561/a?b=c", authorization: "Bearer k"},
		{
			name: "Fastly", url: "https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID", verifyKey: fastly,
			control: "https://api.fastly.com/service/ID", issuer: "fastly:ID", authorization: "Bearer TOKEN", verifies: true,
		},
		{
			name: "Fastly, key in GRIP_URL", url: "https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID&verify-key=" + url.QueryEscape(fastly),
			control: "https://api.fastly.com/service/ID", issuer: "fastly:ID", authorization: "Bearer TOKEN", verifies: true,
		},
		{
			name: "a secret for both", url: "http://localhost/?iss=me&key=base64:" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("changeme"))),
			control: "http://localhost", authorization: "Bearer eyJ", verifies: true,
		},
		{name: "user and password", url: "http://u:p@localhost/", control: "http://localhost", authorization: "Basic dTpw"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseURL(tt.url, tt.verifyKey)
			if err != nil {
				t.Fatal(err)
			}
			authorization := ""
			if c.authorize != nil {
				if authorization, err = c.authorize(); err != nil {
					t.Fatal(err)
				}
			}
			if c.ControlURI != tt.control || c.VerifyIssuer != tt.issuer || c.Verifies() != tt.verifies || !strings.HasPrefix(authorization, tt.authorization) {
				t.Errorf("got %q, %q, %t, %q", c.ControlURI, c.VerifyIssuer, c.Verifies(), authorization)
			}
		})
	}
	for _, bad := range []struct{ url, verifyKey, err string }{
		{"", "", "absolute"},
		{"localhost:5561", "", "absolute"},
		{"ftp://localhost/", "", "absolute"},
		{"http://localhost:SECRET/", "", "not a URL"},
		{"https://api.fastly.com/service/{service-id}?key=SECRET", "", "still has {...}"},
		{"https://api.fastly.com/service/ID?key=%7Bapi-token%7D", "", "still has {...}"},
		{"https://api.fastly.com/service/ID/publish/?key=SECRET", "", "leave that out"},
		{"https://api.fastly.com/service/ID?key=SECRET%", "", "malformed"},
		{"https://api.fastly.com/service/ID?key=SECRET;a", "", "malformed"},
		{"https://api.fastly.com/service/ID?Key=SECRET", "", "write key=, not Key="},
		{"http://localhost/?verify_key=SECRET", "", "write verify-key=, not verify_key="},
		{"http://localhost/?iss=me", "", "needs a key"},
		{"http://localhost/?iss=me&key=base64:SECRET!", "", "not base64"},
		{"http://localhost/?iss=me&key=base64:", "", "empty"},
		{"http://localhost/?iss=me&key=" + url.QueryEscape(fastly), "", "must be a secret"},
		{"http://localhost/", "base64:", "empty"},
		{"http://localhost/", "base64:SECRET!", "not base64"},
		{"http://localhost/", `{"kty":"SECRET"}`, "JSON Web Key"},
		{"http://localhost/", fastly, "add verify-iss=fastly:{service-id}"},
		{"http://localhost/?verify-iss=&iss=me&key=SECRET&verify-key=" + url.QueryEscape(fastly), "", "add verify-iss=fastly:{service-id}"},
		{"http://localhost/", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "PEM"},
	} {
		_, err := ParseURL(bad.url, bad.verifyKey)
		if err == nil || !strings.Contains(err.Error(), bad.err) {
			t.Errorf("%q, %q: got %v, want an error with %q", bad.url, bad.verifyKey, err, bad.err)
		} else if strings.Contains(err.Error(), "SECRET") && !strings.Contains(bad.verifyKey, "kty") {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}

// FuzzParseURL checks that ParseURL either refuses a GRIP_URL, or returns a usable Config.
func FuzzParseURL(f *testing.F) {
	f.Add("http://localhost:5561/?iss=a&key=b", "")
	f.Add("https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID", `{"kty":"EC"}`)
	f.Fuzz(func(t *testing.T, gripURL, verifyKey string) {
		c, err := ParseURL(gripURL, verifyKey)
		if err != nil {
			return
		}
		if u, err := url.Parse(c.ControlURI); err != nil || u.Host == "" || u.User != nil {
			t.Errorf("the control URI is %q, %v", c.ControlURI, err)
		}
		if err := c.Verify(&http.Request{Header: http.Header{HeaderSig: {"x"}}}); c.Verifies() && err == nil {
			t.Error("Verify accepts any signature")
		}
	})
}
