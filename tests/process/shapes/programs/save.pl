# No Python: it saves at the signal that is named.
use strict;
my $name = shift;
my $told;
sub say_it { open my $said, '>>', 'said'; print $said "@_\n"; close $said; print "@_\n" }
$| = 1;
$SIG{$name} = sub { $told = 1 };
say_it("start run $$ $name");
for (1 .. 600) {
    select undef, undef, undef, 0.1;
    next unless $told;
    say_it("told run");
    for (1 .. 6) { select undef, undef, undef, 0.05 }
    say_it("SAVED run");
    exit 0;
}
