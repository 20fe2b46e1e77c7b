// What a QEMU is, for the two sides to compare before one is filled from the other: the device state of one is only
// understood by a QEMU of the same version with the same machine.

import { HypervisorError } from '../port.js';
import { isObject } from './qmp-parser.js';
import type { QmpClient } from './qmp.js';

export interface Inventory {
  /** QEMU's version and package: "7.2.22 (Debian 1:7.2+dfsg-7)". */
  readonly version: string;
  /** The versioned machine type: "pc-q35-7.2-machine". */
  readonly machine: string;
  readonly memoryBytes: number;
  /** The type of each vCPU. */
  readonly cpus: readonly string[];
  /** Devices that were asked for, "type id" or "type", in QEMU's order. */
  readonly devices: readonly string[];
}

/** Fails with FAILED or DOMAIN_GONE. */
export async function takeInventory(qmp: QmpClient, memoryBytes: number): Promise<Inventory> {
  const { major, minor, micro, package: packaged } = qmp.version;
  const [machine, cpus, named, unnamed] = await Promise.all([
    qmp.execute('qom-get', { path: '/machine', property: 'type' }),
    qmp.execute('query-cpus-fast'),
    children(qmp, '/machine/peripheral'),
    children(qmp, '/machine/peripheral-anon'),
  ]);
  if (!Array.isArray(cpus)) throw new HypervisorError('FAILED', 'QEMU does not list its vCPUs.');
  return {
    version: `${major}.${minor}.${micro}${packaged === '' ? '' : ` (${packaged})`}`,
    machine: String(machine),
    memoryBytes,
    cpus: await Promise.all((cpus as unknown[]).map((cpu) => cpuType(qmp, cpu))),
    devices: [...named.map(({ name, type }) => `${type} ${name}`), ...unnamed.map(({ type }) => type)],
  };
}

/** What differs, a sentence each; empty if the one can stand by for the other. */
export function compareInventories(primary: Inventory, secondary: Inventory): string[] {
  const differences: string[] = [];
  const compare = (what: string, here: string, there: string): void => {
    if (here !== there)
      differences.push(`${what}: ${here || 'none'} on the primary, ${there || 'none'} on the secondary`);
  };
  compare('QEMU', primary.version, secondary.version);
  compare('machine', primary.machine, secondary.machine);
  compare('memory', `${primary.memoryBytes} octets`, `${secondary.memoryBytes} octets`);
  compare('vCPUs', primary.cpus.join(', '), secondary.cpus.join(', '));
  compare('devices', primary.devices.join(', '), secondary.devices.join(', '));
  return differences;
}

async function cpuType(qmp: QmpClient, cpu: unknown): Promise<string> {
  if (!isObject(cpu)) throw new HypervisorError('FAILED', 'QEMU does not describe its vCPUs.');
  return String(await qmp.execute('qom-get', { path: cpu['qom-path'], property: 'type' }));
}

async function children(qmp: QmpClient, path: string): Promise<{ name: string; type: string }[]> {
  const properties = await qmp.execute('qom-list', { path });
  if (!Array.isArray(properties))
    throw new HypervisorError('FAILED', 'QEMU does not list its devices.', { path });
  return (properties as unknown[]).flatMap((property) => {
    if (!isObject(property)) return [];
    const type = /^child<(.+)>$/.exec(String(property['type']))?.[1];
    return type === undefined ? [] : [{ name: String(property['name']), type }];
  });
}
