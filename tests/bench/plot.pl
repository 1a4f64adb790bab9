#!/usr/bin/perl
# SPDX-License-Identifier: MIT
# Draws the rows of a benchmark's table that have a ratio and a limit: a bar for the
# ratio, a line where its limit is, and below it what others need for the same.
#
# usage: plot.pl TITLE <TABLE >FILE.svg      TABLE: the rows of tests/bench/lib.sh
use strict;
use warnings;

my $title = shift // die "usage: plot.pl TITLE <TABLE\n";
my ($left, $width, $step, $top) = (310, 380, 30, 58);

my (@rows, $row);
while (<STDIN>) {
	my ($name, undef, undef, $beside, undef, $ratio, $limit, $verdict) =
		map { s/^\s+|\s+$//gr } split /\|/, $_, -1;
	next unless length($ratio // '');
	if (length $limit) {
		$row = { name => $name, beside => $beside, ratio => $ratio, limit => $limit, passed => $verdict eq 'PASS' };
		push @rows, $row;
	} elsif ($row && $name =~ /^\(consulfs\)/) {
		$row->{other} = $ratio;
	}
}
die "no rows with a ratio and a limit\n" unless @rows;

my $max = 0;
for my $r (@rows) {
	($r->{bound} = $r->{limit}) =~ s/^>//;
	for ($r->{ratio}, $r->{other} // 0, $r->{bound}) { $max = $_ if $_ > $max }
}
$max = $max > 8 ? 8 : $max; # longer bars are cut, and say so by their number

sub x { my $v = shift; return sprintf '%.1f', $left + $width * ($v > $max ? $max : $v) / $max }
sub text { my $t = shift; $t =~ s/&/&amp;/g; $t =~ s/</&lt;/g; $t =~ s/>/&gt;/g; return $t }

my $height = $top + $step * @rows + 34;
my $total = $left + $width + 60;
print qq(<svg xmlns="http://www.w3.org/2000/svg" width="$total" height="$height" viewBox="0 0 $total $height" font-family="sans-serif" font-size="12">\n);
print qq(<rect width="100%" height="100%" fill="#ffffff"/>\n);
print qq(<text x="12" y="22" font-size="15" font-weight="bold">), text("icmfs on Consul: $title"), qq(</text>\n);
print qq(<text x="12" y="40" fill="#555555">ratio to the bare request beside the name; the line is the limit</text>\n);
my $bottom = $top + $step * @rows;
for my $v (0 .. int $max) {
	my $x = x($v);
	print qq(<line x1="$x" y1="$top" x2="$x" y2="$bottom" stroke="#dddddd"/>\n);
	print qq(<text x="$x" y="), $bottom + 14, qq(" text-anchor="middle" fill="#555555">$v</text>\n);
}
my $y = $top;
for my $r (@rows) {
	my ($end, $at, $zero) = (x($r->{ratio}), x($r->{bound}), x(0));
	my $color = $r->{passed} ? '#2e7d4f' : '#c0392b';
	my $least = $r->{limit} =~ /^>/ ? 'at least' : 'at most';
	print qq(<text x="), $left - 8, qq(" y="), $y + 13, qq(" text-anchor="end">), text($r->{name}), qq(</text>\n);
	print qq(<text x="), $left - 8, qq(" y="), $y + 25, qq(" text-anchor="end" font-size="9" fill="#777777">), text("beside $r->{beside}, $least $r->{bound}"), qq(</text>\n);
	print qq(<rect x="$zero" y="), $y + 4, qq(" width="), sprintf('%.1f', $end - $zero), qq(" height="12" fill="$color"/>\n);
	# beside bar and line, not over them
	my $past = $end > $at || $at - $end > 40 ? $end : $at;
	print qq(<text x="), $past + 4, qq(" y="), $y + 14, qq(" font-size="11">$r->{ratio}</text>\n);
	if (defined $r->{other}) {
		my $other = x($r->{other});
		print qq(<rect x="$zero" y="), $y + 18, qq(" width="), sprintf('%.1f', $other - $zero), qq(" height="6" fill="#b0b0b0"/>\n);
		print qq(<text x="), $other + 4, qq(" y="), $y + 25, qq(" font-size="9" fill="#777777">consulfs $r->{other}</text>\n);
	}
	print qq(<line x1="$at" y1="), $y + 1, qq(" x2="$at" y2="), $y + 19, qq(" stroke="#000000" stroke-width="2"/>\n);
	$y += $step;
}
print qq(</svg>\n);
