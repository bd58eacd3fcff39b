# iptables.json is what `nft -j list ruleset` of nft 1.0.6 printed after this, with
# iptables 1.8.9 (nf_tables) in a network namespace of its own.
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A INPUT -s 192.0.2.13 -p udp -m multiport --dports 5060,7946 -j ACCEPT
iptables -A INPUT -s 192.0.2.12 -p tcp --dport 7946 -j REJECT
iptables -A INPUT -p udp -m multiport --dports 5060,7946 -m comment --comment "no SIP from outside" -j DROP
iptables -A INPUT -p tcp -m multiport --dports 22,7946 -j DROP
