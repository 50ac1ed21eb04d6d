# A launcher that is no Python: it starts a command, hands SIGTERM, SIGINT and SIGUSR1 on, waits, and ends alike.
use strict;
my $child = fork // die;
exec @ARGV or die unless $child;
for my $name (qw(TERM INT USR1)) { $SIG{$name} = sub { kill $name, $child } }
while (waitpid($child, 0) != $child) { }
exit(($? & 127) ? 128 + ($? & 127) : $? >> 8);
