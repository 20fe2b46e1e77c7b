// What a configuration's section for QEMU becomes: QEMU's command line, or what is attached to.

import { expect } from 'chai';
import type { QemuHypervisorConfig } from '../../src/config/hypervisor.js';
import { checkConfig, commandLine } from '../../src/hypervisor/qemu/config.js';
import { networkArguments } from '../../src/hypervisor/qemu/network/network.js';
import { attachedQemu, managedQemu } from '../../src/service/hypervisors.js';
import { primaryDomain } from '../support/domains.js';

function section(changes: object): QemuHypervisorConfig {
  // On one host: one that is attached to is nobody's standby.
  const domain = { hosts: ['north'], hypervisor: { kind: 'qemu', ...changes } };
  const { hypervisor } = primaryDomain(domain, { directory: '/etc/romulus' });
  if (hypervisor.kind !== 'qemu') throw new Error('no section for QEMU');
  return hypervisor;
}

function lineOf(changes: object): string {
  const hypervisor = section(changes);
  if (hypervisor.mode !== 'managed') throw new Error('not managed');
  const config = managedQemu('web', hypervisor);
  checkConfig(config);
  return commandLine(config, 'primary').join(' ');
}

describe('service: QEMU as configured', () => {
  it('says to QEMU what the section says', () => {
    const line = lineOf({
      accelerator: 'tcg',
      machine: 'pc',
      cpu: 'max',
      cpus: 2,
      memory: '128MiB',
      arguments: ['-kernel', '/boot/vmlinuz'],
      network: [{ id: 'lan', tap: 'tap,0', mac: '52:54:00:00:00:01', model: 'e1000' }],
    });
    expect(line).to.match(/^-name web .* -accel tcg -machine pc,memory-backend=\S+ -cpu max -smp 2 -m 128M /);
    expect(line).to.include(' -netdev tap,id=lan,ifname=tap,,0,script=no,downscript=no,vhost=off ');
    expect(line).to.include(' -device e1000,netdev=lan,id=card-lan,mac=52:54:00:00:00:01 ');
    expect(line).to.match(/ -kernel \/boot\/vmlinuz$/);
  });

  it('leaves to QEMU what the section leaves out', () => {
    const line = lineOf({});
    expect(line).to.include(' -accel kvm -machine q35,');
    expect(line).to.include(' -m 512M ');
    expect(line).to.not.match(/-cpu|-netdev|-device/);
  });

  it('plugs network devices into what they say, in their order, on the bus that there is', () => {
    const devices = [
      { id: 'a', backend: { kind: 'user', options: 'restrict=on' } },
      { id: 'b', backend: { kind: 'socket', options: 'listen=127.0.0.1:1' } },
    ] as const;
    expect(networkArguments(devices, 'microvm,rtc=on')).to.deep.equal([
      ...['-netdev', 'user,id=a,restrict=on', '-device', 'virtio-net-device,netdev=a,id=card-a'],
      ...['-netdev', 'socket,id=b,listen=127.0.0.1:1', '-device', 'virtio-net-device,netdev=b,id=card-b'],
    ]);
    expect(networkArguments(devices, 'q35')[3]).to.equal('virtio-net-pci,netdev=a,id=card-a');
    expect(() => networkArguments([devices[0], devices[0]], 'q35')).to.throw(/a name of its own/);
  });

  it('attaches to what the section names', () => {
    const shared = { sharedDisks: ['d'], fence: 'external' };
    const disks = { root: { durability: 'relaxed' } };
    const hypervisor = section({ qmp: 'q', serial: '/s', ...shared, disks, network: [{ id: 'lan' }] });
    if (hypervisor.mode !== 'attached') throw new Error('not attached');
    expect(attachedQemu('web', hypervisor)).to.deep.equal({
      name: 'web',
      monitor: '/etc/romulus/q',
      serial: '/s',
      sharedDisks: ['d'],
      disks: { root: { durability: 'relaxed', preallocate: false } },
      netdevs: ['lan'],
    });
  });
});
