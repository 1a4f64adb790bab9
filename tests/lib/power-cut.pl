#!/usr/bin/perl
# SPDX-License-Identifier: MIT
# What a disk would hold after a power cut: power-cut.pl TRACE FROM TO TIME SEED
#
# FROM is the directory of a store as it was before the trace, TRACE what strace
# saw the daemon do (-f -ttt -T -y -xx), TO a new directory: FROM with what had
# reached the disk for certain by TIME (a file's writes before its last sync that
# had returned), and of the writes after it each 512-byte sector or not, by SEED.
use strict;
use warnings;

my ($trace, $from, $to, $time, $seed) = @ARGV;
my (@events, %unfinished);
srand($seed);

# The trace in order: [time, name, path, bytes or length, offset]
sub event {
	my ($when, $name, $args, $took, $result) = @_;
	return if $result < 0;
	my ($path) = $args =~ /^\d+<((?:\\x[0-9a-f]{2})+)>/ or return;
	$path =~ s/\\x(..)/chr hex $1/ge;
	return unless $path =~ m{^\Q$from\E/([^/]+)$};
	my $file = $1;
	return if $file =~ /-(shm|wake)$/;
	if ($name eq 'pwrite64') {
		my ($hex, $length, $offset) = $args =~ /, "((?:\\x..)*)", (\d+), (\d+)/ or die "trace: $args";
		$hex =~ s/\\x//g;
		push @events, [$when, 'write', $file, substr(pack('H*', $hex), 0, $result), $offset];
	} elsif ($name eq 'ftruncate') {
		my ($length) = $args =~ /, (\d+)/;
		push @events, [$when, 'truncate', $file, $length];
	} else {
		push @events, [$when + $took, 'sync', $file];
	}
}

open(my $in, '<', $trace) or die "$trace: $!";
while (<$in>) {
	my ($pid, $when, $rest) = /^(\d+)\s+([\d.]+) (.*)$/s or next;
	if ($rest =~ /^(\w+)\((.*) <unfinished \.\.\.>$/s) {
		$unfinished{$pid} = [$when, $1, $2];
	} elsif ($rest =~ /^<\.\.\. (\w+) resumed>(.*?)\) += (-?\d+).*<([\d.]+)>$/s) {
		my $start = delete $unfinished{$pid} or next;
		event($start->[0], $1, $start->[2] . $2, $4, $3);
	} elsif ($rest =~ /^(\w+)\((.*)\) += (-?\d+).*<([\d.]+)>$/s) {
		event($when, $1, $2, $4, $3);
	}
}
@events = sort { $a->[0] <=> $b->[0] } grep { $_->[0] <= $time } @events;

my (%content, %synced);
mkdir $to or die "$to: $!";
for my $i (0 .. $#events) {
	$synced{$events[$i][2]} = $i if $events[$i][1] eq 'sync';
}
opendir(my $dir, $from) or die "$from: $!";
for my $file (grep { !/^\.\.?$/ && !/-(shm|wake)$/ } readdir $dir) {
	open(my $f, '<:raw', "$from/$file") or die "$file: $!";
	local $/;
	$content{$file} = <$f> // '';
}
sub put {
	my ($file, $bytes, $offset) = @_;
	$content{$file} //= '';
	$content{$file} .= "\0" x ($offset + length($bytes) - length($content{$file}))
		if length($content{$file}) < $offset + length($bytes);
	substr($content{$file}, $offset, length($bytes)) = $bytes;
}
for my $i (0 .. $#events) {
	my (undef, $what, $file, $data, $offset) = @{$events[$i]};
	my $certain = defined $synced{$file} && $i < $synced{$file};
	next if $what eq 'sync';
	if ($what eq 'truncate') {
		next unless $certain || rand() < 0.5;
		$content{$file} = substr($content{$file} // '', 0, $data);
		$content{$file} .= "\0" x ($data - length($content{$file}));
		next;
	}
	while (length $data) {
		my $part = substr($data, 0, 512 - $offset % 512, '');
		put($file, $part, $offset) if $certain || rand() < 0.5;
		$offset += length $part;
	}
}
for my $file (keys %content) {
	open(my $f, '>:raw', "$to/$file") or die "$file: $!";
	print $f $content{$file};
	close $f or die "$file: $!";
}
print scalar(@events), " events\n";
