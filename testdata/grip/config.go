package grip

import (
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

// Config says which GRIP proxy an origin works behind.
type Config struct {
	// ControlURI is where to publish, less the final "/publish/".
	ControlURI string
	// VerifyIssuer is the issuer that a request's signature must have. Empty: any.
	VerifyIssuer string

	authorize func() (string, error) // the header Authorization for publishing; nil: none
	verifyKey any                    // nil: requests are not verified
}

// ParseURL parses a GRIP_URL: the control URI of a GRIP proxy, with these in its query:
//
//   - iss and key: publish with a JWT for this issuer, signed with this key (HS256)
//   - key alone: publish with this token
//   - verify-iss and verify-key: who must have signed requests, and with which key; without
//     verify-key, a key that comes with an iss is used for both
//
// User and password of the URI are for publishing with basic authentication. A key that starts with
// "base64:" is decoded first. A verify-key may be a public key in PEM, a JSON Web Key, or a secret; a
// key to sign with is a secret.
// If verifyKey is not empty it stands for verify-key, as GRIP_VERIFY_KEY does.
// An error names the part that is wrong, and what to change, and never a key.
// Source: https://github.com/fanout/js-grip#the-grip_url
func ParseURL(gripURL, verifyKey string) (*Config, error) {
	u, err := url.Parse(gripURL)
	if err != nil {
		return nil, errors.New("GRIP_URL is not a URL: escape what is special in its keys, and look at its port") // err would show the keys
	}
	if placeholder.MatchString(gripURL) {
		return nil, errors.New("GRIP_URL still has {...} in it: put your service's id and API token there")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("GRIP_URL is not an absolute http or https URL, such as http://localhost:5561/")
	}
	if strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/publish") {
		return nil, errors.New("GRIP_URL ends its path in /publish/: leave that out, it is added")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("GRIP_URL: its query is malformed: escape what is special in its keys")
	}
	for name := range query {
		if known := strings.ReplaceAll(strings.ToLower(name), "_", "-"); known != name && slices.Contains(parameters, known) {
			return nil, fmt.Errorf("GRIP_URL: write %s=, not %s=", known, name)
		}
	}
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	c := &Config{}
	issuer, key := take("iss"), take("key")
	c.VerifyIssuer = take("verify-iss")
	if v := take("verify-key"); verifyKey == "" {
		verifyKey = v
	}
	switch {
	case issuer != "":
		signKey, err := parseKey(key)
		if err != nil {
			return nil, fmt.Errorf("GRIP_URL: iss needs a key to sign with: %w", err)
		}
		secret, ok := signKey.([]byte)
		if !ok {
			return nil, errors.New("GRIP_URL: iss needs a key to sign with, and that must be a secret, not a public key")
		}
		c.authorize = authorizeJWT(issuer, secret)
		if verifyKey == "" {
			verifyKey = key
		}
	case key != "":
		c.authorize = func() (string, error) { return "Bearer " + key, nil }
	case u.User != nil:
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		c.authorize = func() (string, error) { return "Basic " + basic, nil }
	}
	if verifyKey != "" {
		if c.verifyKey, err = parseKey(verifyKey); err != nil {
			return nil, fmt.Errorf("GRIP_URL: verify-key: %w", err)
		}
	}
	u.User, u.RawQuery = nil, query.Encode()
	u.Path = strings.TrimSuffix(u.Path, "/")
	c.ControlURI = u.String()
	return c, nil
}

// parameters are those of a GRIP_URL.
var parameters = []string{"iss", "key", "verify-iss", "verify-key"}

var placeholder = regexp.MustCompile(`(?i)\{[a-z-]+\}|%7b[a-z-]+%7d`)

// decode64 decodes a key that starts with "base64:", in either alphabet, and padded or not.
func decode64(key string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(key, "base64:")
	if !ok {
		return []byte(key), nil
	}
	// In a query a plus sign that was not escaped has become a space.
	encoded = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(encoded), "=")
	decoded, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("what follows base64: is not base64")
	}
	return decoded, nil
}

// parseKey parses a key to verify with, or to sign with: a public key, or a secret as []byte.
func parseKey(key string) (any, error) {
	raw, err := decode64(key)
	if err != nil {
		return nil, err
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
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
		return k, nil
	case []byte:
		if len(k) > 0 {
			return k, nil
		}
	}
	return nil, errors.New("the JSON Web Key is no public key, and no secret")
}

func authorizeJWT(issuer string, key []byte) func() (string, error) {
	return func() (string, error) {
		claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(10 * time.Minute))}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(key)
		return "Bearer " + token, err
	}
}

// Verifies reports whether Verify checks signatures, for which GRIP_URL needs a verify-key.
func (c *Config) Verifies() bool { return c.verifyKey != nil }

// Verify returns an error, ErrNotProxied with the reason, unless the request came through the GRIP
// proxy: its HeaderSig is a JWT that was signed with the proxy's key, for its issuer, and has not
// expired. Without a key to verify with, the header alone will do.
// Source: https://pushpin.org/docs/protocols/grip/
func (c *Config) Verify(r *http.Request) error {
	sig := r.Header.Get(HeaderSig)
	if sig == "" {
		return fmt.Errorf("%w: it has no %s", ErrNotProxied, HeaderSig)
	}
	if c.verifyKey == nil {
		return nil
	}
	methods := []string{"ES256", "RS256", "EdDSA"}
	if _, secret := c.verifyKey.([]byte); secret {
		methods = []string{"HS256"} // never a public key as a secret
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired()}
	if c.VerifyIssuer != "" {
		options = append(options, jwt.WithIssuer(c.VerifyIssuer))
	}
	if _, err := jwt.Parse(sig, func(*jwt.Token) (any, error) { return c.verifyKey, nil }, options...); err != nil {
		return fmt.Errorf("%w: its %s: %w", ErrNotProxied, HeaderSig, err)
	}
	return nil
}
