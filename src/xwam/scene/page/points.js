// WebGL 2: a view's depth and colours are textures, and the vertex shader lifts each pixel to its point in the base
// frame, so that another frame costs three uploads and no geometry. Passes: points into a buffer of their own; that on
// the canvas with eye-dome lighting (Boucheny 2009), which darkens what lies behind its neighbours; cameras over it.

const POINTS_VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp usampler2D;
uniform usampler2D codes, flags;
uniform sampler2D colours;
uniform vec4 pinhole;                  // fx, fy, cx, cy in pixels
uniform mat4 T_base_cam, base_to_clip;
uniform vec3 low, high;                // the box that is shown
uniform float nearest, stepsPerE, splat;
uniform bool surface;                  // without flying pixels
uniform uint layers;                   // a bit a layer
uniform vec4 tint;
uniform bool byLayer;
out vec3 colour;
vec3 lift(ivec2 pixel) {
  float depth = nearest * exp((float(texelFetch(codes, pixel, 0).r) - 1.0) / stepsPerE);
  return vec3((vec2(pixel) + 0.5 - pinhole.zw) / pinhole.xy * depth, depth);
}
void main() {
  ivec2 size = textureSize(codes, 0), pixel = ivec2(gl_VertexID % size.x, gl_VertexID / size.x);
  uint code = texelFetch(codes, pixel, 0).r, flag = texelFetch(flags, pixel, 0).r, layer = flag >> 1;
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = 1.0;
  if (code == 0u || (surface && (flag & 1u) == 0u) || (layers & (1u << layer)) == 0u) return;
  vec3 seen = lift(pixel);
  vec4 point = T_base_cam * vec4(seen, 1.0);
  if (any(lessThan(point.xyz, low)) || any(greaterThan(point.xyz, high))) return;
  gl_Position = base_to_clip * point;
  // As large as to its neighbours, so that a surface seen aslant is closed as well; but what flies stays small.
  float own = seen.z / pinhole.x;
  float gap = max(distance(seen, lift(min(pixel + ivec2(1, 0), size - 1))), distance(seen, lift(min(pixel + ivec2(0, 1), size - 1))));
  gl_PointSize = clamp(splat * clamp(gap, own, 3.0 * own) / gl_Position.w, 1.0, 80.0);
  colour = texelFetch(colours, pixel, 0).rgb;
  vec4 over = tint;
  if (byLayer) over = vec4(layer == 1u ? vec3(0.95, 0.45, 0.15) : layer == 2u ? vec3(0.1, 0.7, 0.5) : vec3(0.5, 0.55, 0.65), 0.6);
  float light = dot(colour, vec3(0.3, 0.59, 0.11));
  colour = mix(colour, over.rgb * (0.35 + 0.9 * light), over.a);
}`;

const POINTS_FRAGMENT = `#version 300 es
precision highp float;
in vec3 colour;
out vec4 result;
void main() {
  vec2 from = gl_PointCoord - 0.5;
  if (dot(from, from) > 0.25) discard;
  result = vec4(colour, 1.0);
}`;

const LIGHT_VERTEX = `#version 300 es
void main() { gl_Position = vec4(4.0 * float(gl_VertexID == 1) - 1.0, 4.0 * float(gl_VertexID == 2) - 1.0, 0.0, 1.0); }`;

const LIGHT_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D colours;
uniform highp sampler2D depths;
uniform vec2 planes;                   // near and far
uniform vec4 panel;                    // its lowest and highest pixel: neighbours are of the same panel
uniform float strength, radius;
out vec4 result;
float distanceAt(ivec2 pixel) {
  float z = texelFetch(depths, clamp(pixel, ivec2(panel.xy), ivec2(panel.zw)), 0).r;
  return z == 1.0 ? 1e9 : planes.x * planes.y / (planes.y - z * (planes.y - planes.x));
}
void main() {
  ivec2 here = ivec2(gl_FragCoord.xy);
  float depth = texelFetch(depths, here, 0).r, away = log2(distanceAt(here)), shade = 0.0;
  if (depth == 1.0) discard;
  for (int k = 0; k < 8; k++) {
    float angle = 0.785398 * float(k);
    shade += max(0.0, away - log2(distanceAt(here + ivec2(round(radius * vec2(cos(angle), sin(angle)))))));
  }
  result = vec4(texelFetch(colours, here, 0).rgb * exp(-strength * min(shade, 0.6)), 1.0);
  gl_FragDepth = depth;
}`;

// A line is a strip of four corners, `thick` pixels wide on the screen.
const LINES_VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in vec3 from;
layout(location = 1) in vec3 to;
layout(location = 2) in vec4 paint;
uniform mat4 base_to_clip;
uniform vec2 size;
uniform float thick;
out vec4 colour;
void main() {
  vec4 a = base_to_clip * vec4(from, 1.0), b = base_to_clip * vec4(to, 1.0);
  if (a.w < 0.001) a = mix(a, b, (0.001 - a.w) / (b.w - a.w));
  if (b.w < 0.001) b = mix(b, a, (0.001 - b.w) / (a.w - b.w));
  vec2 along = normalize((b.xy / b.w - a.xy / a.w) * size + 1e-6), side = vec2(-along.y, along.x) * thick / size;
  gl_Position = (gl_VertexID & 1) == 0 ? a : b;
  gl_Position.xy += side * ((gl_VertexID & 2) == 0 ? 1.0 : -1.0) * gl_Position.w;
  colour = paint;
}`;

const LINES_FRAGMENT = `#version 300 es
precision highp float;
in vec4 colour;
out vec4 result;
void main() { result = vec4(colour.rgb * colour.a, colour.a); }`;

const PICTURE_VERTEX = `#version 300 es
precision highp float;
uniform vec3 corners[4];
uniform mat4 base_to_clip;
out vec2 place;
void main() {
  place = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  gl_Position = base_to_clip * vec4(corners[gl_VertexID], 1.0);
}`;

const PICTURE_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D colours;
in vec2 place;
out vec4 result;
void main() { result = vec4(texture(colours, place).rgb, 1.0); }`;

class Renderer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = (this.gl = canvas.getContext("webgl2", { alpha: true, antialias: true, powerPreference: "high-performance" }));
    if (!gl) throw new Error("this browser has no WebGL 2: the pictures and plots below still work");
    this.points = this.program(POINTS_VERTEX, POINTS_FRAGMENT);
    this.light = this.program(LIGHT_VERTEX, LIGHT_FRAGMENT);
    this.lines = this.program(LINES_VERTEX, LINES_FRAGMENT);
    this.pictures = this.program(PICTURE_VERTEX, PICTURE_FRAGMENT);
    this.nothing = gl.createVertexArray(); // shaders that count vertices by themselves
    this.segments = gl.createVertexArray();
    this.segmentBuffer = gl.createBuffer();
    gl.bindVertexArray(this.segments);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.segmentBuffer);
    for (const [place, count, offset] of [[0, 3, 0], [1, 3, 12], [2, 4, 24]]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, count, gl.FLOAT, false, 40, offset);
      gl.vertexAttribDivisor(place, 1);
    }
    this.buffer = gl.createFramebuffer();
    this.size = [0, 0];
    this.cells = new Map();
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram(), places = {};
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
      throw new Error("a shader does not link: " + gl.getProgramInfoLog(program) + gl.getAttachedShaders(program).map((s) => gl.getShaderInfoLog(s)).join());
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name } = gl.getActiveUniform(program, i);
      places[name] = gl.getUniformLocation(program, name);
    }
    return { program, places };
  }

  texture(filter) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const which of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, which, filter);
    for (const which of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, which, gl.CLAMP_TO_EDGE);
    return texture;
  }

  // Brings one view of one frame to the graphics card, unless it is there.
  upload(clip, view, frame, { image, codes, flags }) {
    const gl = this.gl, key = `${clip.index}-${view}`;
    if (!this.cells.has(key))
      this.cells.set(key, { colours: this.texture(gl.LINEAR), codes: this.texture(gl.NEAREST), flags: this.texture(gl.NEAREST), frame: -1 });
    const cell = this.cells.get(key), { width, height } = clip;
    if (cell.frame === frame) return;
    cell.frame = frame;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.bindTexture(gl.TEXTURE_2D, cell.colours);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.bindTexture(gl.TEXTURE_2D, cell.codes);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_SHORT, codes);
    gl.bindTexture(gl.TEXTURE_2D, cell.flags);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, flags);
  }

  resize(width, height) {
    if (this.size[0] === width && this.size[1] === height) return;
    const gl = this.gl;
    this.size = [this.canvas.width, this.canvas.height] = [width, height];
    for (const old of [this.colours, this.depths]) gl.deleteTexture(old);
    this.colours = this.texture(gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, width, height);
    this.depths = this.texture(gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.DEPTH_COMPONENT24, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.colours, 0);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.TEXTURE_2D, this.depths, 0);
  }

  // Draws all panels. A panel: its rectangle in pixels from below left, what is to be lifted, lines, pictures.
  draw(panels, orbit, look) {
    const gl = this.gl;
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.SCISSOR_TEST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.buffer);
    for (const panel of panels) this.drawPoints(panel, look);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    for (const panel of panels) {
      this.begin(panel);
      this.drawLight(panel, orbit, look);
      this.drawPictures(panel);
      this.drawLines(panel);
    }
  }

  begin({ rectangle }) {
    const gl = this.gl;
    gl.viewport(...rectangle);
    gl.scissor(...rectangle);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  use({ program, places }, textures) {
    const gl = this.gl;
    gl.useProgram(program);
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(places[name], unit);
    });
    return places;
  }

  drawPoints(panel, look) {
    const gl = this.gl;
    this.begin(panel);
    gl.bindVertexArray(this.nothing);
    for (const { clip, view, frame, tint } of panel.views) {
      const cell = this.cells.get(`${clip.index}-${view}`);
      if (!cell) continue;
      const at = this.use(this.points, { codes: cell.codes, flags: cell.flags, colours: cell.colours });
      gl.uniform4fv(at.pinhole, clip.intrinsics[view][frame]);
      gl.uniformMatrix4fv(at.T_base_cam, false, clip.poses[view][frame]);
      gl.uniformMatrix4fv(at.base_to_clip, false, panel.matrix);
      gl.uniform3fv(at.low, look.box[0]);
      gl.uniform3fv(at.high, look.box[1]);
      gl.uniform1f(at.nearest, clip.nearest);
      gl.uniform1f(at.stepsPerE, scene.stepsPerE);
      gl.uniform1f(at.splat, (look.pointSize * panel.rectangle[3]) / (2 * Math.tan(FIELD_OF_VIEW / 2)));
      gl.uniform1i(at.surface, look.surface);
      gl.uniform1ui(at.layers, look.layers);
      gl.uniform4fv(at.tint, tint);
      gl.uniform1i(at.byLayer, look.colour === "layer" && clip.layers);
      gl.drawArrays(gl.POINTS, 0, clip.width * clip.height);
    }
  }

  drawLight({ rectangle: [x, y, width, height] }, orbit, look) {
    const gl = this.gl, at = this.use(this.light, { colours: this.colours, depths: this.depths });
    gl.bindVertexArray(this.nothing);
    gl.uniform2fv(at.planes, orbit.planes());
    gl.uniform4f(at.panel, x, y, x + width - 1, y + height - 1);
    gl.uniform1f(at.strength, look.shading ? 2.2 : 0);
    gl.uniform1f(at.radius, Math.max(1, 1.1 * devicePixelRatio));
    gl.depthFunc(gl.ALWAYS);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.depthFunc(gl.LESS);
  }

  drawPictures(panel) {
    const gl = this.gl;
    gl.bindVertexArray(this.nothing);
    for (const { clip, view, corners } of panel.pictures) {
      const cell = this.cells.get(`${clip.index}-${view}`);
      if (!cell) continue;
      const at = this.use(this.pictures, { colours: cell.colours });
      gl.uniform3fv(at["corners[0]"], corners.flat());
      gl.uniformMatrix4fv(at.base_to_clip, false, panel.matrix);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
  }

  drawLines(panel) {
    const gl = this.gl, at = this.use(this.lines, {});
    gl.bindVertexArray(this.segments);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.segmentBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(panel.lines.flat(2)), gl.STREAM_DRAW);
    gl.uniformMatrix4fv(at.base_to_clip, false, panel.matrix);
    gl.uniform2f(at.size, panel.rectangle[2], panel.rectangle[3]);
    gl.uniform1f(at.thick, 1.7 * devicePixelRatio);
    gl.enable(gl.BLEND);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, panel.lines.length);
    gl.disable(gl.BLEND);
  }
}
