// What "info network" says: the network cards, and what each is plugged into.
//
//   hub 0                                                        a hub of QEMU's: its ports, and who is on them
//    \ hub0port1: slirp0: index=0,type=user,net=10.0.2.0,…
//    \ hub0port0: rtl8139.0: index=0,type=nic,model=rtl8139,macaddr=52:54:00:12:34:57
//   card-lan: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56
//    \ lan: index=0,type=tap,ifname=tap0,script=no,downscript=no  the netdev that the card above is plugged into
//   spare: index=0,type=user,…                                   a netdev without a card
//   nocable: index=0,type=nic,…                                  a card without a netdev
//
// The text is QEMU's own (net_hub_info, hmp_info_network); there is no command that gives it as data.

export interface Nic {
  readonly name: string;
  readonly model: string;
  readonly mac: string;
  /** Null: it is plugged into nothing. `type` of a netdev, or 'hubport'. */
  readonly peer: { readonly name: string; readonly type: string } | null;
}

/** The network cards, those on hubs first, else in QEMU's order. A card has one entry for each of its queues. */
export function listNics(text: string): Nic[] {
  const nics: Nic[] = [];
  let open: Nic | null = null;
  const close = (): void => {
    if (open) nics.push(open);
    open = null;
  };
  for (const line of text.split(/\r?\n/)) {
    const onHub = /^ \\ (hub\d+port\d+|[^:]+): ([^:]+): index=\d+,type=nic,(.*)$/.exec(line);
    const nic = /^([^ :][^:]*): index=\d+,type=nic,(.*)$/.exec(line);
    const plug = /^ \\ ([^:]+): index=\d+,type=([^,]+)/.exec(line);
    if (onHub) {
      const [, port = '', name = '', rest = ''] = onHub;
      nics.push({ name, ...describe(rest), peer: { name: port, type: 'hubport' } });
    } else if (nic) {
      close();
      const [, name = '', rest = ''] = nic;
      open = { name, ...describe(rest), peer: null };
    } else if (plug && open) {
      const [, name = '', type = ''] = plug;
      nics.push({ ...open, peer: { name, type } });
      open = null;
    } else if (line !== '' && !line.startsWith(' ')) {
      close();
    }
  }
  close();
  return nics;
}

export interface Netdev {
  readonly name: string;
  readonly type: string;
}

/** What a card is plugged into or might be: the netdevs, each once, and the ports of hubs that cards are on. */
export function listNetdevs(text: string): Netdev[] {
  const netdevs = new Map<string, Netdev>();
  for (const { peer } of listNics(text)) if (peer) netdevs.set(peer.name, peer);
  for (const [, name = '', type = ''] of text.matchAll(/^([^ :\r\n][^:\r\n]*): index=\d+,type=([^,\s]+)/gm)) {
    if (type !== 'nic') netdevs.set(name, { name, type });
  }
  return [...netdevs.values()];
}

/** The ids of all filters, whatever they are at. */
export function listFilters(text: string): string[] {
  return [...text.matchAll(/^ +- ([^:\r\n]+): type=/gm)].map(([, id = '']) => id);
}

/** A further queue of a card says nothing of itself. */
function describe(rest: string): { model: string; mac: string } {
  return {
    model: /model=([^,]*)/.exec(rest)?.[1] ?? '',
    mac: /macaddr=([^,]*)/.exec(rest)?.[1] ?? '',
  };
}
