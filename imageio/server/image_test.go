package server

import "testing"

// TestOneImageOneKey: however a ticket names an export, its users share one disk, whose
// locks keep their writes to one block apart; other exports have other disks.
func TestOneImageOneKey(t *testing.T) {
	t.Parallel()
	seen := map[imageKey]string{}
	for _, same := range [][]string{
		{"nbd:h:10809:exportname=x", "nbd://h:10809/x", "nbd://h/x", "nbd://H/x", "nbd:h:010809:exportname=x", "NBD://h:10809/x"},
		{"nbd://localhost/", "nbd://localhost", "nbd:localhost:10809", "nbd:localhost:10809:exportname=", "nbd:///", "nbd://:10809/"},
		{"nbd://[::1]/x", "nbd:[::1]:10809:exportname=x", "nbd://[0::1]:10809/x"},
		{"nbd:unix:/run/s:exportname=x", "nbd:unix:/run//s:exportname=x", "nbd:unix:/run/./s:exportname=x"},
		{"nbd:unix:@a//b:exportname=x"}, {"nbd:unix:@a/b:exportname=x"},
		{"nbd://h/X"}, {"nbd://h/y"}, {"nbd://h//x", "nbd:h:10809:exportname=/x"}, {"nbd://h:10810/x"}, {"nbd://unix/run/s"}, {"nbd:unix:/run/s:exportname=y"},
		{"http://h/images/x", "http://H:80/images/x", "HTTP://h/images/x"}, {"https://h/images/x", "https://h:443/images/x"}, {"http://h:443/images/x"},
	} {
		for _, text := range same {
			if keyText(t, text) != keyText(t, same[0]) {
				t.Errorf("%s and %s have two disks", same[0], text)
			}
		}
		if old, ok := seen[keyText(t, same[0])]; ok {
			t.Errorf("%s and %s share a disk", same[0], old)
		}
		seen[keyText(t, same[0])] = same[0]
	}
}

func keyText(t *testing.T, text string) imageKey {
	t.Helper()
	u, err := parseTicketURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(u, Access{Write: true})
}
