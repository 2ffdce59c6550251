# Answers every request with one page and the header by which a hub knows a single-user server.
use strict;
use warnings;
use IO::Socket::INET;

$SIG{TERM} = $SIG{INT} = sub { exit 0 };
my $url = $ENV{JUPYTERHUB_SERVICE_URL} || 'http://0.0.0.0:8888/';
my ($port) = $url =~ m{^https?://[^/]*:(\d+)};
$port ||= 8888;
my $server = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $port, Listen => 16, ReuseAddr => 1)
    or die "cannot listen on port $port: $!\n";
print STDERR "serving a page on port $port\n";

my $page = "<!doctype html><title>no Python here</title><p>This server is not written in Python.\n";
while (1) {
    my $client = $server->accept or next;
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: ", length($page),
        "\r\nX-JupyterHub-Version: 5.0.0\r\nConnection: close\r\n\r\n", $page;
    close $client;
}
