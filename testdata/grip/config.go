package grip

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Config describes the GRIP proxy of an origin.
type Config struct {
	// ControlURI is the URL for publishing, without "/publish/" at the end. Its query may have secrets.
	ControlURI *url.URL

	authorize    func() string // returns the header Authorization for publishing; nil: no header
	verifyIssuer string        // "": any
	verifyKey    any           // nil: requests are not verified
}

// ParseURL parses a GRIP_URL: the control URI of a GRIP proxy, with these parameters in its query.
//
//   - iss and key: publish with a JWT of this issuer, signed with this secret (HS256)
//   - key without iss: publish with this token
//   - verify-iss and verify-key: the issuer and the key of the signatures on requests; without a
//     verify-key, the key that belongs to iss is used for both
//
// A user and password in the URI are for publishing with basic authentication. After "base64:", the
// rest of a key is decoded first. A verify-key may be a public key in PEM, a JSON Web Key or a secret.
// A public key needs a verify-iss, because Fanout's is the same for all services. If verifyKey is not
// empty, it takes the place of verify-key; it is for the environment variable GRIP_VERIFY_KEY.
// An error says which part is wrong and what to change, and never shows a key.
// Source: https://github.com/fanout/js-grip#the-grip_url
func ParseURL(gripURL, verifyKey string) (*Config, error) {
	u, err := url.Parse(gripURL)
	if err != nil {
		// err would show the keys
		return nil, errors.New("GRIP_URL is not a URL: escape the special characters in its keys, and check its port")
	}
	if placeholder.MatchString(gripURL) {
		return nil, errors.New("GRIP_URL still has {...} in it: replace it with your service's id and API token")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("GRIP_URL is not an absolute http or https URL, such as http://localhost:5561/")
	}
	if strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/publish") {
		return nil, errors.New("the path in GRIP_URL ends with /publish/: leave it out, the origin adds it")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query in GRIP_URL is malformed: escape the special characters in its keys")
	}
	for name := range query {
		known := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if known != name && slices.Contains([]string{"iss", "key", "verify-iss", "verify-key"}, known) {
			return nil, fmt.Errorf("GRIP_URL: write %s=, not %s=", known, name)
		}
	}
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	issuer, key := take("iss"), take("key")
	c := &Config{ControlURI: u, verifyIssuer: take("verify-iss")}
	verifyKey = cmp.Or(verifyKey, take("verify-key"))
	switch {
	case issuer != "":
		signKey, err := parseKey(key)
		if err != nil {
			return nil, fmt.Errorf("GRIP_URL: iss needs a key for signing: %w", err)
		}
		secret, ok := signKey.([]byte)
		if !ok {
			return nil, errors.New("GRIP_URL: iss needs a key for signing; it must be a secret, not a public key")
		}
		c.authorize = func() string { return "Bearer " + sign(issuer, secret) }
		verifyKey = cmp.Or(verifyKey, key)
	case key != "":
		c.authorize = func() string { return "Bearer " + key }
	case u.User != nil:
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		c.authorize = func() string { return "Basic " + basic }
	}
	if verifyKey != "" {
		if c.verifyKey, err = parseKey(verifyKey); err != nil {
			return nil, fmt.Errorf("GRIP_URL: verify-key: %w", err)
		}
		if _, secret := c.verifyKey.([]byte); !secret && c.verifyIssuer == "" {
			return nil, errors.New("GRIP_URL has a public verify-key and no verify-iss: add verify-iss=fastly:{service-id}, because all Fanout services sign with the same key")
		}
	}
	u.User, u.RawQuery = nil, query.Encode()
	return c, nil
}

var placeholder = regexp.MustCompile(`(?i)\{[a-z-]+\}|%7b[a-z-]+%7d`)

// parseKey parses a key for verifying or signing. It returns a public key, or a secret as []byte.
func parseKey(key string) (any, error) {
	raw := []byte(key)
	if text, ok := strings.CutPrefix(key, "base64:"); ok {
		// Accept the alphabet for URLs too, without padding, and a plus sign that was not escaped.
		text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(text), "=")
		var err error
		if raw, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			return nil, errors.New("the text after base64: is not base64")
		}
	}
	if len(raw) == 0 {
		return nil, errors.New("it is empty")
	}
	if block, _ := pem.Decode(raw); block != nil {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the PEM has no public key")
		}
		return public, nil
	}
	if raw[0] != '{' || !json.Valid(raw) {
		return raw, nil
	}
	jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, fmt.Errorf("JSON Web Key: %w", err)
	}
	switch k := jwk.Key().(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey, []byte:
		return k, nil
	}
	return nil, errors.New("the JSON Web Key is neither a public key nor a secret")
}

// sign returns a JWT that is valid for ten minutes.
func sign(issuer string, secret []byte) string {
	claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(10 * time.Minute))}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		panic(err) // claims of strings and numbers can always be signed
	}
	return token
}

// Verifies reports whether Verify checks signatures. It does if the GRIP_URL has a key for them.
func (c *Config) Verifies() bool { return c.verifyKey != nil }

// Verify returns an error if the request did not come through the GRIP proxy. Its HeaderSig must be a
// JWT that is signed with the proxy's key, has the right issuer and has not expired. If the Config has
// no key for verifying, any HeaderSig is accepted.
func (c *Config) Verify(r *http.Request) error {
	sig := r.Header.Get(HeaderSig)
	if sig == "" {
		return errors.New("not through the GRIP proxy: it has no " + HeaderSig)
	}
	if c.verifyKey == nil {
		return nil
	}
	methods := []string{"ES256", "RS256", "EdDSA"}
	if _, secret := c.verifyKey.([]byte); secret {
		methods = []string{"HS256"} // a public key must never be used as a secret
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithIssuer(c.verifyIssuer)}
	if _, err := jwt.Parse(sig, func(*jwt.Token) (any, error) { return c.verifyKey, nil }, options...); err != nil {
		return fmt.Errorf("not through the GRIP proxy: its %s: %w", HeaderSig, err)
	}
	return nil
}
