// What a QEMU is, as the facts that must be the same in the QEMU that stands by: the device state of one is only
// understood by a QEMU of the same version with the same machine and the same devices at the same places.
//
//   QEMU, accelerator, machine, vCPUs and their features, devices, network cards, user networks, memory blocks, disks
//
// "devices" are all that QEMU shows (info qtree), those of the machine too: it knows no other list that has what older
// options add. Network cards stand in a list of their own: whether a virtio card is on a tap is part of its state (a
// card that was on one cannot be loaded into one that is not), what else it is plugged into is not. Nor is its id, which
// whoever starts a QEMU gives as he likes: its state is found by its place. A user network has a state of its own.

import { valueAt } from '../../../stream/bounds.js';
import { failed } from '../../port.js';
import { describeDisks, type FoundDisk } from '../disks/find.js';
import { inventoryText, type Inventory } from '../../inventory.js';
import { listNics } from '../network/network-list.js';
import { isObject } from './qmp-parser.js';
import type { QmpClient } from './qmp.js';

/**
 * `ram`: the name of guest RAM's block, which may be another on each side; `disks`: that are replicated.
 * @throws HypervisorError FAILED or DOMAIN_GONE
 */
export async function takeInventory(
  qmp: QmpClient,
  ram: string,
  disks: readonly FoundDisk[] = [],
): Promise<Inventory> {
  const { major, minor, micro, package: packaged } = qmp.version;
  const [machine, kvm, cpus, tree, network, blocks] = await Promise.all([
    qmp.execute('qom-get', { path: '/machine', property: 'type' }),
    qmp.execute('query-kvm'),
    takeCpus(qmp),
    qmp.human('info qtree'),
    qmp.human('info network'),
    qmp.human('info ramblock'),
  ]);
  const cards = new Set(listNics(network).map(({ name }) => name));
  return {
    QEMU: `${major}.${minor}.${micro}${packaged === '' ? '' : ` (${packaged})`}`,
    accelerator: isObject(kvm) && kvm['enabled'] === true ? 'kvm' : 'not kvm',
    machine: String(machine).replace(/-machine$/, ''),
    vCPUs: inventoryText(cpus.vcpus),
    'vCPU features': inventoryText(cpus.features),
    devices: inventoryText(listDevices(tree, cards)),
    'network cards': inventoryText(listCards(network)),
    'user networks': countUserNetworks(network),
    'memory blocks': inventoryText(listBlocks(blocks, ram)),
    disks: inventoryText(describeDisks(disks)),
  };
}

/**
 * The devices in "info qtree", in its order, each with its id (but for `cards`, the ids of network cards), its address on
 * its bus, and its network address.
 */
export function listDevices(tree: string, cards: ReadonlySet<string> = new Set()): string[] {
  const devices: string[] = [];
  for (const line of tree.split(/\r?\n/)) {
    const device = /^\s*dev: (\S+), id "(.*)"$/.exec(line);
    if (device) {
      const [, type = '', id = ''] = device;
      devices.push(id === '' || cards.has(id) ? type : `${type} ${id}`);
      continue;
    }
    const [, property, value] = /^\s*(addr|mac) = "?([^"\s]+)"?$/.exec(line) ?? [];
    const last = devices.at(-1);
    if (property !== undefined && value !== undefined && last !== undefined) {
      devices[devices.length - 1] = `${last} ${property} ${value}`;
    }
  }
  return devices;
}

/** The memory blocks in "info ramblock" but for guest RAM, in the order of their names: "pc.bios 262144". */
export function listBlocks(ramBlocks: string, ram: string): string[] {
  // The last column is what a block may grow to: the tables for the firmware are made anew, of another size, by a reset.
  const lines = ramBlocks.matchAll(/^\s*(\S+)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+0x([0-9a-f]+)/gm);
  return [...lines]
    .filter((match) => match[1] !== ram)
    .map((match) => `${valueAt(match, 1)} ${Number.parseInt(valueAt(match, 2), 16)}`)
    .sort();
}

/** The network cards in "info network", each with its type, its address, and whether its packets have tap's headers. */
export function listCards(network: string): string[] {
  return listNics(network).map(({ model, mac, peer }) => {
    const onTap = model.startsWith('virtio') && peer?.type === 'tap';
    return `${model} ${mac}${onTap ? ' on a tap' : ''}`;
  });
}

/** How many in "info network"; empty: none. */
export function countUserNetworks(network: string): string {
  const count = [...network.matchAll(/: index=\d+,type=user,/g)].length;
  return count === 0 ? '' : String(count);
}

async function takeCpus(qmp: QmpClient): Promise<{ vcpus: string[]; features: string[] }> {
  const cpus = await qmp.execute('query-cpus-fast');
  if (!Array.isArray(cpus) || cpus.length === 0) throw failed('QEMU does not list its vCPUs');
  const vcpus = await Promise.all(
    (cpus as unknown[]).map(async (cpu) => {
      if (!isObject(cpu)) throw failed('QEMU does not describe its vCPUs');
      const type = await qmp.execute('qom-get', { path: cpu['qom-path'], property: 'type' });
      const place = isObject(cpu['props']) ? cpu['props'] : {};
      const names = Object.keys(place).sort();
      return [String(type), ...names.map((name) => `${name} ${String(place[name])}`)].join(' ');
    }),
  );
  // They are all alike.
  const [first] = cpus as unknown[];
  const words = await qmp.execute('qom-get', {
    path: isObject(first) ? first['qom-path'] : '',
    property: 'feature-words',
  });
  if (!Array.isArray(words)) throw failed('QEMU does not list its vCPUs’ features');
  return { vcpus, features: (words as unknown[]).flatMap(describeFeatures) };
}

/** One word of CPUID: "0x7.0 ebx 0x01d843a9". Words without a bit are left out. */
function describeFeatures(word: unknown): string[] {
  if (!isObject(word) || Number(word['features']) === 0) return [];
  const leaf = `0x${Number(word['cpuid-input-eax']).toString(16)}`;
  const subleaf = word['cpuid-input-ecx'] === undefined ? '' : `.${Number(word['cpuid-input-ecx'])}`;
  const register = String(word['cpuid-register']).toLowerCase();
  return [`${leaf}${subleaf} ${register} 0x${Number(word['features']).toString(16)}`];
}
