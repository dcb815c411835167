module nereid/cluster/pause

go 1.24
