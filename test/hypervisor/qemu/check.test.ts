// What is refused, and what is compared, without a QEMU.

import { expect } from 'chai';
import { blocksOutside } from '../../../src/hypervisor/qemu/check.js';
import { checkConfig, commandLine, type QemuConfig } from '../../../src/hypervisor/qemu/config.js';
import { compareInventories, type Inventory } from '../../../src/hypervisor/qemu/inventory.js';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { MIB } from './support.js';

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
    const source = commandLine(full, false);
    expect(commandLine(full, true)).to.deep.equal([...source, '-incoming', 'defer']);
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

  it('tells what differs between two QEMUs', () => {
    const one: Inventory = {
      version: '7.2.22 (Debian)',
      machine: 'pc-q35-7.2-machine',
      memoryBytes: 1024,
      cpus: ['qemu64-x86_64-cpu'],
      devices: ['virtio-net-pci nic0'],
    };
    expect(compareInventories(one, { ...one })).to.deep.equal([]);
    expect(compareInventories(one, { ...one, version: '8.0.0', devices: [] })).to.deep.equal([
      'QEMU: 7.2.22 (Debian) on the primary, 8.0.0 on the secondary',
      'devices: virtio-net-pci nic0 on the primary, none on the secondary',
    ]);
  });
});
