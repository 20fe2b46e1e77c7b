// What keeps a QEMU from being replicated by Romulus, found by asking it: memory that is neither in the RAM file nor
// constant, and network cards whose output is not held.

import { valueAt } from '../../../stream/bounds.js';
import { badConfiguration } from '../../port.js';
import { listNics, type Nic } from '../network/network-list.js';
import type { QmpClient } from './qmp.js';

/** Firmware, option ROMs and ACPI tables: the same on both sides, because the command lines are. */
const CONSTANT_BLOCK = /^\/rom@|(^|[./])(bios|rom|flash\d*)$/;

/** The names in "info ramblock" that are neither `ram` nor constant. */
export function blocksOutside(ramBlocks: string, ram: string): string[] {
  const names = [...ramBlocks.matchAll(/^\s*(\S+)\s+\d+ [KMG]iB\s+0x/gm)].map((match) => valueAt(match, 1));
  return names.filter((name) => name !== ram && !CONSTANT_BLOCK.test(name));
}

/** The device state holds no RAM blocks. @throws HypervisorError BAD_CONFIGURATION, naming the block */
export async function checkRamBlocks(qmp: QmpClient, ram: string): Promise<void> {
  const outside = blocksOutside(await qmp.human('info ramblock'), ram);
  const [block] = outside;
  if (block === undefined) return;
  throw badConfiguration(
    `the device with the memory block ${block} cannot be replicated: its memory lies outside guest RAM; ` +
      'use a machine without a graphics card (-nodefaults, no -vga, no -device VGA)',
    { blocks: outside.join(' ') },
  );
}

/**
 * Every network card must be plugged into a netdev whose output is held (`gated`, their ids), or into nothing. One that
 * QEMU's filters cannot hold though it is named is refused by its gate.
 * @throws HypervisorError BAD_CONFIGURATION, naming the card
 */
export async function checkNetwork(qmp: QmpClient, gated: readonly string[]): Promise<void> {
  const nic = ungatedNic(await qmp.human('info network'), gated);
  if (!nic?.peer) return;
  const { name, peer } = nic;
  const how = isVhost(nic)
    ? `cannot be held: its netdev ${peer.name} (${peer.type}) bypasses QEMU; use one without vhost`
    : `would not be held: name its netdev in the configuration, "network: [{ id: ${peer.name} }]" ` +
      '(one that QEMU has named itself needs -netdev …,id=NAME first)';
  const facts = { card: name, netdev: peer.name, type: peer.type };
  throw badConfiguration(`the output of the network card ${name} ${how}`, facts);
}

/** The first card in "info network" whose output no gate at these netdevs would hold, or null. */
export function ungatedNic(network: string, gated: readonly string[]): Nic | null {
  const ungated = (nic: Nic) => nic.peer !== null && (isVhost(nic) || !gated.includes(nic.peer.name));
  return listNics(network).find(ungated) ?? null;
}

/** Of types vhost-user and vhost-vdpa. (A tap with vhost=on looks like any other; QEMU refuses its filters.) */
function isVhost({ peer }: Nic): boolean {
  return peer?.type.startsWith('vhost') === true;
}
