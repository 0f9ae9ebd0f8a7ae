// SPDX-License-Identifier: Apache-2.0

package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/bench/plot"
)

func at(x, y float64) bench.Point {
	return bench.Point{X: x, Y: bench.Interval{Median: y, Low: y - 0.01, High: y + 0.01, N: 9}}
}

func pods() bench.Plot {
	return bench.Plot{Name: "pods", Title: "Cost against pods", X: "pods in the cluster", Y: "ratio to no agent", LogX: true, Lines: []bench.Line{
		{Name: "established packet", Points: []bench.Point{at(100, 1), at(8000, 1.003), at(2000, 1.001), at(100_000, 1.002)}},
		{Name: "CPU of a request", Points: []bench.Point{at(100, 1.012), at(2000, 1.013), at(8000, 1.014), at(100_000, 1.015)}},
		{Name: "nothing yet"},
	}}
}

func TestAnSVGHoldsItsTextsAndIsWellFormed(t *testing.T) {
	var out bytes.Buffer
	if err := plot.WriteSVG(&out, pods()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Cost against pods", "pods in the cluster", "ratio to no agent", "established packet", "CPU of a request", ">100,000<", ">2,000<", ">0.99<", ">1.00<", ">1.02<"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	d := xml.NewDecoder(&out)
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPNGCanBeReadAndShowsTheLines(t *testing.T) {
	var out bytes.Buffer
	if err := plot.WritePNG(&out, pods()); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&out)
	if err != nil {
		t.Fatal(err)
	}
	blue := 0
	for x := range img.Bounds().Dx() {
		for y := range img.Bounds().Dy() {
			if r, g, b, _ := img.At(x, y).RGBA(); r>>8 == 0 && g>>8 == 114 && b>>8 == 178 {
				blue++
			}
		}
	}
	if blue < 500 {
		t.Errorf("%d dots have the colour of the second line, want a line of them", blue)
	}
}

func TestTheSamePlotGivesTheSameBytes(t *testing.T) {
	for name, write := range map[string]func(io.Writer, bench.Plot) error{"svg": plot.WriteSVG, "png": plot.WritePNG} {
		var first, second bytes.Buffer
		if err := errors.Join(write(&first, pods()), write(&second, pods())); err != nil {
			t.Fatal(err)
		}
		if first.Len() == 0 || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s: two drawings of one plot differ", name)
		}
	}
}

func TestWhatCannotBeDrawnIsAnError(t *testing.T) {
	tests := map[string]bench.Plot{
		"there is no point":            {Lines: []bench.Line{{Name: "a"}}},
		"a point that is no number":    {Lines: []bench.Line{{Name: "a", Points: []bench.Point{at(1, math.NaN())}}}},
		"a point at 0 on a logarithmi": {LogX: true, Lines: []bench.Line{{Name: "a", Points: []bench.Point{at(0, 1)}}}},
	}
	for want, p := range tests {
		if err := plot.WriteSVG(io.Discard, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestASinglePointIsDrawn(t *testing.T) {
	p := bench.Plot{Lines: []bench.Line{{Name: "a", Points: []bench.Point{at(50, 12000)}}}}
	if err := errors.Join(plot.WriteSVG(io.Discard, p), plot.WritePNG(io.Discard, p)); err != nil {
		t.Error(err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAPlotThatCannotBeWrittenIsAnError(t *testing.T) {
	if err := plot.WriteSVG(full{}, pods()); err == nil {
		t.Error("no error")
	}
}
