/**
 * A file system that is too simple to be wrong: names in maps, content in maps of blocks.
 *
 * @module
 */

import { ContentDigest, describeAttributes } from "../helpers/describe.ts";

const BLOCK_SIZE = 4096;

/** A file of the model. */
export interface ModelNode {
  /** Its inode number in the volume under test. */
  readonly ino: number;
  readonly type: "file" | "directory" | "symlink";
  permissions: number;
  uid: number;
  dos: number;
  nlink: number;
  size: number;
  target: string;
  /** Blocks by index; never changed in place, so that clones can share them. */
  blocks: Map<number, Uint8Array>;
  children: Map<string, ModelNode>;
  xattrs: Map<string, Uint8Array>;
}

/** A place in the tree. */
export interface ModelPlace {
  readonly parent: ModelNode;
  readonly name: string;
  readonly node: ModelNode;
}

/** See the module. */
export class FileModel {
  root: ModelNode = newNode(2, "directory", 0o755);

  /** A copy that later changes do not reach. */
  clone(): FileModel {
    const copies = new Map<ModelNode, ModelNode>();
    const copy = (node: ModelNode): ModelNode => {
      let made = copies.get(node);
      if (made === undefined) {
        made = {
          ...node,
          blocks: new Map(node.blocks),
          xattrs: new Map(node.xattrs),
          children: new Map(),
        };
        copies.set(node, made);
        for (const [name, child] of node.children) made.children.set(name, copy(child));
      }
      return made;
    };
    const model = new FileModel();
    model.root = copy(this.root);
    return model;
  }

  /** All names but the root's. */
  places(): ModelPlace[] {
    const found: ModelPlace[] = [];
    const walk = (parent: ModelNode) => {
      for (const [name, node] of parent.children) {
        found.push({ parent, name, node });
        if (node.type === "directory") walk(node);
      }
    };
    walk(this.root);
    return found;
  }

  /** All directories. */
  directories(): ModelNode[] {
    const below = this.places().map(({ node }) => node);
    return [this.root, ...below.filter(({ type }) => type === "directory")];
  }

  create(parent: ModelNode, name: string, node: ModelNode): void {
    parent.children.set(name, node);
    if (node.type === "directory") parent.nlink++;
  }

  link(parent: ModelNode, name: string, node: ModelNode): void {
    parent.children.set(name, node);
    node.nlink++;
  }

  remove(parent: ModelNode, name: string): void {
    const node = parent.children.get(name)!;
    parent.children.delete(name);
    if (node.type === "directory") parent.nlink--;
    else node.nlink--;
  }

  rename(from: ModelPlace, to: { parent: ModelNode; name: string }): void {
    const present = to.parent.children.get(to.name);
    if (present === from.node) return;
    if (present !== undefined) this.remove(to.parent, to.name);
    from.parent.children.delete(from.name);
    to.parent.children.set(to.name, from.node);
    if (from.node.type !== "directory") return;
    from.parent.nlink--;
    to.parent.nlink++;
  }

  write(node: ModelNode, offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const index = Math.floor((offset + done) / BLOCK_SIZE);
      const within = (offset + done) % BLOCK_SIZE;
      const count = Math.min(BLOCK_SIZE - within, bytes.length - done);
      const block = node.blocks.get(index)?.slice() ?? new Uint8Array(BLOCK_SIZE);
      block.set(bytes.subarray(done, done + count), within);
      node.blocks.set(index, block);
      done += count;
    }
    if (bytes.length > 0) node.size = Math.max(node.size, offset + bytes.length);
  }

  truncate(node: ModelNode, size: number): void {
    for (const [index, block] of [...node.blocks]) {
      const keep = size - index * BLOCK_SIZE;
      if (keep <= 0) node.blocks.delete(index);
      else if (keep < BLOCK_SIZE) node.blocks.set(index, block.slice().fill(0, keep));
    }
    node.size = size;
  }

  /** The same text as `describe` gives of a volume's file system. */
  describe(): string[] {
    const lines: string[] = [];
    const firstNames = new Map<ModelNode, string>();
    const walk = (node: ModelNode, path: string) => {
      const known = firstNames.get(node);
      firstNames.set(node, known ?? path);
      const fields: (string | number)[] = [
        path,
        node.type,
        node.permissions.toString(8),
        node.uid,
        0,
        node.nlink,
        node.dos,
      ];
      if (node.type !== "directory") fields.push(node.size);
      if (known !== undefined) fields.push(`same as ${known}`);
      else if (node.type === "file") fields.push(contentOf(node));
      else if (node.type === "symlink") fields.push(`-> ${node.target}`);
      fields.push(describeAttributes({ xattrs: node.xattrs }));
      lines.push(fields.join(" "));
      const names = [...node.children.keys()].sort(compareUtf8);
      for (const name of names) walk(node.children.get(name)!, `${path}/${name}`);
    };
    walk(this.root, "");
    return lines;
  }
}

/** A file of the model with nothing in it. */
export function newNode(ino: number, type: ModelNode["type"], permissions: number): ModelNode {
  return {
    ino,
    type,
    permissions,
    uid: 0,
    dos: 0,
    nlink: type === "directory" ? 2 : 1,
    size: 0,
    target: "",
    blocks: new Map(),
    children: new Map(),
    xattrs: new Map(),
  };
}

/**
 * Orders names by their bytes, which is the order of their code points. JavaScript orders by UTF-16,
 * which differs above U+FFFF.
 */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    // Where the first difference lies in the second half of a pair, both first halves were equal.
    if (a.charCodeAt(i) !== b.charCodeAt(i)) return a.codePointAt(i)! - b.codePointAt(i)!;
  }
  return a.length - b.length;
}

function contentOf(node: ModelNode): string {
  const digest = new ContentDigest();
  for (const index of [...node.blocks.keys()].sort((a, b) => a - b)) {
    digest.add(index, node.blocks.get(index)!);
  }
  return digest.toString();
}
