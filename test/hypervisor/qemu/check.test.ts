// What is refused, and what is compared, without a QEMU.

import { expect } from 'chai';
import { blocksOutside, ungatedNic } from '../../../src/hypervisor/qemu/monitor/check.js';
import { checkConfig, commandLine, type QemuConfig } from '../../../src/hypervisor/qemu/config.js';
import {
  countUserNetworks,
  listBlocks,
  listCards,
  listDevices,
} from '../../../src/hypervisor/qemu/monitor/inventory.js';
import { listNics } from '../../../src/hypervisor/qemu/network/network-list.js';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { MIB } from '../support.js';

describe('qemu: configuration and checks', () => {
  const config: QemuConfig = { name: 'web', memoryBytes: 64 * MIB };

  it('makes the same command line for both sides, but for the waiting', () => {
    const full: QemuConfig = {
      ...config,
      name: 'a,b',
      machine: 'pc',
      cpu: 'max',
      cpus: 2,
      arguments: ['-device', 'x'],
    };
    const source = commandLine(full, 'primary');
    expect(commandLine(full, 'probe')).to.deep.equal([...source, '-incoming', 'defer']);
    expect(source.join(' ')).to.include('-name a,,b').and.include('-machine pc,memory-backend=romulus-ram');
    expect(source.join(' ')).to.include('-cpu max').and.include('-smp 2').and.include('-m 64M');
    expect(source.slice(-2)).to.deep.equal(['-device', 'x']);
  });

  const bad: Record<string, Partial<QemuConfig>> = {
    memoryBytes: { memoryBytes: 64 * MIB + 4096 },
    'memoryBytes ': { memoryBytes: 0 },
    cpus: { cpus: 0.5 },
    machine: { machine: 'q35,memory-backend=mine' },
    arguments: { arguments: ['-m', '1G'] },
    'arguments ': { arguments: ['--daemonize'] },
    'arguments  ': { arguments: ['-netdev', 'user,id=a'] },
    'arguments   ': { arguments: ['--nic', 'user'] },
    'arguments    ': { arguments: ['-net', 'nic'] },
    'arguments     ': { arguments: ['-append', 'a\0b'] },
  };
  for (const [key, part] of Object.entries(bad)) {
    it(`refuses ${JSON.stringify(part)}`, () => {
      expect(() => checkConfig({ ...config, ...part }))
        .to.throw(HypervisorError)
        .with.property('facts')
        .that.has.property('key', key.trim());
    });
  }

  it('knows memory that is not RAM and not constant', () => {
    const text = [
      '              Block Name    PSize              Offset               Used              Total',
      '             romulus-ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000',
      '                vga.vram    4 KiB  0x0000000008080000 0x0000000001000000 0x0000000001000000',
      '    /rom@etc/acpi/tables    4 KiB  0x0000000009100000 0x0000000000020000 0x0000000000200000',
      '                 pc.bios    4 KiB  0x0000000008000000 0x0000000000040000 0x0000000000040000',
      '  0000:00:01.0/vga.rom    4 KiB  0x0000000009080000 0x0000000000010000 0x0000000000010000',
      '                  pc.rom    4 KiB  0x0000000008040000 0x0000000000020000 0x0000000000020000',
    ].join('\r\n');
    expect(blocksOutside(text, 'romulus-ram')).to.deep.equal(['vga.vram']);
    expect(blocksOutside(text, 'ram')).to.deep.equal(['romulus-ram', 'vga.vram']);
  });

  it('reads the memory blocks but for guest RAM', () => {
    const text = [
      '              Block Name    PSize              Offset               Used              Total',
      '             romulus-ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000',
      '                 pc.bios    4 KiB  0x0000000008000000 0x0000000000040000 0x0000000000040000',
      '    /rom@etc/acpi/tables    4 KiB  0x0000000009100000 0x0000000000020000 0x0000000000200000',
    ].join('\r\n');
    expect(listBlocks(text, 'romulus-ram')).to.deep.equal(['/rom@etc/acpi/tables 2097152', 'pc.bios 262144']);
  });

  it('reads the devices with their places and addresses', () => {
    const text = [
      'bus: main-system-bus',
      '  type System',
      '  dev: ioapic, id ""',
      '    version = 32 (0x20)',
      '  dev: q35-pcihost, id ""',
      '    bus: pcie.0',
      '      dev: virtio-net-pci, id "card-lan"',
      '        addr = 03.0',
      '        class Ethernet controller, addr 00:03.0, pci id 1af4:1000 (sub 1af4:0001)',
      '        bus: virtio-bus',
      '          dev: virtio-net-device, id ""',
      '            mac = "52:54:00:12:34:58"',
      '            ctrl_mac_addr = true',
    ].join('\r\n');
    expect(listDevices(text)).to.deep.equal([
      'ioapic',
      'q35-pcihost',
      'virtio-net-pci card-lan addr 03.0',
      'virtio-net-device mac 52:54:00:12:34:58',
    ]);
    expect(listDevices(text, new Set(['card-lan']))).to.include('virtio-net-pci addr 03.0');
  });

  // As QEMU 7.2 wrote it.
  const NETWORK = [
    'hub 0',
    ' \\ hub0port1: #net270: index=0,type=user,net=10.0.2.0,restrict=off',
    ' \\ hub0port0: rtl8139.0: index=0,type=nic,model=rtl8139,macaddr=52:54:00:12:34:57',
    'hub 3',
    ' \\ hp',
    'unused: index=0,type=user,net=10.0.2.0,restrict=off',
    'e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56',
    ' \\ #net018: index=0,type=user,net=10.0.2.0,restrict=off',
    'card-a: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:58',
    ' \\ a: index=0,type=tap,ifname=tap0,script=no,downscript=no',
    'filters:',
    '  - romulus-a-sealed: type=filter-buffer',
    'nocable: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:59',
  ].join('\r\n');

  it('reads the network cards, and what each is plugged into', () => {
    expect(
      listNics(NETWORK).map(({ name, model, mac, peer }) => [
        name,
        model,
        mac.slice(-2),
        peer?.name,
        peer?.type,
      ]),
    ).to.deep.equal([
      ['rtl8139.0', 'rtl8139', '57', 'hub0port0', 'hubport'],
      ['e1000.0', 'e1000', '56', '#net018', 'user'],
      ['card-a', 'virtio-net-pci', '58', 'a', 'tap'],
      ['nocable', 'e1000', '59', undefined, undefined],
    ]);
  });

  it('says of a virtio card whether it is on a tap: its state cannot be loaded into one that is not', () => {
    expect(listCards(NETWORK)).to.deep.equal([
      'rtl8139 52:54:00:12:34:57',
      'e1000 52:54:00:12:34:56',
      'virtio-net-pci 52:54:00:12:34:58 on a tap',
      'e1000 52:54:00:12:34:59',
    ]);
    expect(listCards(NETWORK.replace('type=tap', 'type=user'))[2]).to.not.include('tap');
  });

  it('counts the user networks, each of which has a state of its own', () => {
    expect(countUserNetworks(NETWORK)).to.equal('3');
    expect(countUserNetworks('a: index=0,type=tap,ifname=type=user,\r\n')).to.equal('');
  });

  it('finds the card whose output is not held', () => {
    const all = ['hub0port0', '#net018', 'a'];
    expect(ungatedNic(NETWORK, all)).to.equal(null);
    expect(ungatedNic(NETWORK, ['a', '#net018'])?.name).to.equal('rtl8139.0');
    expect(ungatedNic(NETWORK, ['a', 'hub0port0'])?.name).to.equal('e1000.0');
    expect(ungatedNic(NETWORK, ['hub0port0', '#net018'])?.name).to.equal('card-a');
    // Named, and still past QEMU.
    expect(ungatedNic(NETWORK.replace('type=tap', 'type=vhost-user'), all)?.name).to.equal('card-a');
  });
});
