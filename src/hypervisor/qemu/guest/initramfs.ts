// A Linux initramfs, written without tools and without being root: the kernel's "newc" archive, whose entries are
//
//     "070701", 13 numbers of 8 hexadecimal digits | name, NUL, zeros to 4 octets | data, zeros to 4 octets
//
// one after another, up to one named TRAILER!!!. The kernel unpacks archives that follow one another in one file.

const DIRECTORY = 0o040755;
const FILE = 0o100755;

export class Initramfs {
  readonly #pieces: Buffer[] = [];
  readonly #directories = new Set<string>();
  #entries = 0;

  /** A file that everybody may read and run. Paths have no leading slash; folders above are made. */
  file(path: string, data: Uint8Array): this {
    return this.#entry(path, FILE, data);
  }

  directory(path: string): this {
    if (path === '.' || path === '' || this.#directories.has(path)) return this;
    this.#directories.add(path);
    return this.#entry(path, DIRECTORY, Buffer.alloc(0));
  }

  /** The archive so far, ended. */
  bytes(): Buffer {
    return Buffer.concat([...this.#pieces, ...entry(0, 'TRAILER!!!', 0, Buffer.alloc(0))]);
  }

  #entry(path: string, mode: number, data: Uint8Array): this {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.#entries += 1;
    this.#pieces.push(...entry(this.#entries, path, mode, data));
    return this;
  }
}

function entry(inode: number, path: string, mode: number, data: Uint8Array): Buffer[] {
  const name = Buffer.from(`${path}\0`);
  const [owner, group, links, modified, device, checksum] = [0, 0, 1, 0, 0, 0];
  const numbers = [inode, mode, owner, group, links, modified, data.length];
  numbers.push(device, device, device, device, name.length, checksum);
  const header = Buffer.from(
    `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`,
  );
  return [header, name, zeros(header.length + name.length), Buffer.from(data), zeros(data.length)];
}

/** What is missing to a multiple of 4. */
function zeros(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
